"""Speed, memory and size of files, without a student and without ground truth; `python -m runtime.bench FILE...`."""
