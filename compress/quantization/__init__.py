"""Quantization: the int8 student, in PyTorch. Scales are chosen here and nowhere else."""
