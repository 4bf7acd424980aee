"""From a finished run to a model that may be used: gates, a decision record, a folder, versions."""
