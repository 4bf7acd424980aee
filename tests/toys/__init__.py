"""Small extensions that a user could write; each touches no file of the library."""
