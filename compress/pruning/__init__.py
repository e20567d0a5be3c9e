"""Pruning: zeros by pattern (masks), and parts of a network that are removed."""
