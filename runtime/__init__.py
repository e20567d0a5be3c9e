"""runtime: runs exported files and holds them against the PyTorch reference."""
