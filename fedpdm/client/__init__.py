"""The client: what a site does with a message from the server."""
