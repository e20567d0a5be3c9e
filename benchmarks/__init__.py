"""Measurements of what the documentation claims; never run as tests."""
