"""What would make a result worthless, looked for before a run trains."""
