"""The report: one HTML page that needs no other file and no network. `python -m runtime.report`, see `__main__`."""
