"""What a site does with a message."""
