"""Decoding, screening and summing the sites' updates on the server."""
