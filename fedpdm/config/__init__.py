"""The composed config: composing it, checking its values, and where ``conf/`` lies."""
