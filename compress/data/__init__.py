"""Images to LR/HR patches, benchmark sets, downloads."""
