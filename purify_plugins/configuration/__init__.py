"""`purify.toml`: found, consented to, checked, and built into a Purifier."""
