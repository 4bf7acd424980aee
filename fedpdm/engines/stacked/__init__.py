"""Sites trained together as one stacked model."""
