"""What the predictions are worth: experiments, their runs, and the tables made of them."""
