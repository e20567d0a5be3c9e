"""export: turns a student into files, and reads the files back."""
