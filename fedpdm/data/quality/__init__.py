"""What looks odd in a site's data, and what was understood of it. Nothing here leaves the site."""
