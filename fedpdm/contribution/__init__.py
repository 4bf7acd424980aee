"""What each site brought to a finished run, found by training again."""
