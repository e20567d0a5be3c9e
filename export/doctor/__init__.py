"""Says what will hurt on a phone before a student is exported; `python -m export.doctor`."""
