"""``python -m fedpdm.watch``: a page that shows a run while it works; reads only."""
