"""Quality of a site's data: what looks odd, what was understood. Nothing leaves the site."""
