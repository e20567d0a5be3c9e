"""Whole photographs, and folders of them, in any size and little memory; `python -m runtime.upscale`. Needs no torch."""
