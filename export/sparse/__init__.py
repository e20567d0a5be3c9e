"""Students with 2:4 or block masks: each format's own sparse form, and what it gains."""
