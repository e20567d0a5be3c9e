"""Sparse weights in a .tflite, encoded by TensorFlow: the file shrinks, and a runtime fills the zeros in again as it loads.

TensorFlow's own step for finished files gives every constant weight of which at least 30 % is zero the `sparsity`
parameters of the format (all dimensions dense but the last, whose columns are listed, one per weight that is not zero)
and a DENSIFY operator in front of the convolution. It knows no blocks for CONV_2D, so blocks are listed weight by weight.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from compress.errors import BadInput

KEEPS_CONSTANTS = b"keep_stablehlo_constant"
"""Metadata of litert-torch, with which TensorFlow would read float weights as another kind of constant and skip them."""


FLOAT16_WARNING = (
    "sparse float16 weights need LiteRT 2.2 or newer, for older XNNPACK kernels compute wrong values with them"
)


def check_tensorflow() -> None:
    """Raises BadInput where TensorFlow is not installed."""
    if importlib.util.find_spec("tensorflow") is None:
        raise BadInput(
            "expected TensorFlow to write a sparse .tflite, found it missing: pip install 'pocketsr[tensorflow]'."
        )


def sparsified(content: bytes) -> bytes:
    """A .tflite with its sparse weights encoded as such; tensors lose their names.

    TensorFlow runs in a process of its own: its LLVM and that of PyTorch's triton end the one they meet in.

    Raises:
        BadInput: TensorFlow is missing.
        RuntimeError: it fails; what it says goes to standard error.
    """
    check_tensorflow()
    with tempfile.TemporaryDirectory() as folder:
        dense, sparse = Path(folder) / "dense.tflite", Path(folder) / "sparse.tflite"
        dense.write_bytes(_without_entry(content))
        script = Path(__file__).with_name("tensorflow_process.py")
        done = subprocess.run(  # -P: the modules beside the script are not to be found as onnx and the like
            [sys.executable, "-P", str(script), str(dense), str(sparse)],
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"}, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"TensorFlow's sparse encoding ended with code {done.returncode}")
        return sparse.read_bytes()


def _without_entry(content: bytes) -> bytes:
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    model.metadata = [entry for entry in model.metadata or [] if entry.name != KEEPS_CONSTANTS]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
