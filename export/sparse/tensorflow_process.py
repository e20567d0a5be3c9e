"""The program that `export.sparse.tflite` runs in a process of its own: reads a .tflite, writes it with sparse weights."""

import sys
from pathlib import Path

from tensorflow.lite.python.convert import mlir_sparsify

if __name__ == "__main__":
    dense, sparse = map(Path, sys.argv[1:])
    sparse.write_bytes(mlir_sparsify(dense.read_bytes()))
