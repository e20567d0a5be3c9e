"""The results page: what pipelines measured, beside what the sources of their recipes state."""
