"""Finds the first layer of an exported file whose output leaves the student's; `python -m export.bisect`."""
