"""onnx2tf, in an environment of its own: full-integer quantization of the float32 .onnx that we export."""

import shutil
from pathlib import Path

import numpy as np

from benchmarks.peers import Task
from benchmarks.peers.environment import run_peer
from compress.errors import BadInput
from export.onnx import export_onnx

SAMPLES, COUNT = "calibration_image_sample_data_20x128x128x3_float32.npy", 20
"""Pictures that onnx2tf compares its operators with the .onnx on; where it does not find them, it downloads its own."""


def write_int8(task: Task) -> Path:
    """Writes the int8 .tflite. Raises BadInput where onnx2tf cannot be installed or fails."""
    folder = task.folder.absolute()
    given, crops, made = (folder / name for name in ("float32.onnx", "crops.npy", "onnx2tf"))
    export_onnx(task.student, given, "float32", sizes=[[task.side, task.side]])
    shutil.rmtree(made, ignore_errors=True)  # where a quantization fails, onnx2tf ends well and writes the other files
    np.save(crops, task.channels_last())
    np.save(folder / SAMPLES, task.channels_last()[:COUNT])
    zero, one = "[[[[0,0,0]]]]", "[[[[1,1,1]]]]"  # mean and deviation that leave the pixels as they are
    calibration = ["--custom_input_op_name_np_data_path", "lr", crops, zero, one]
    order = ["-i", given, "-o", made, "--output_integer_quantized_tflite", *calibration]
    run_peer("onnx2tf", ["-m", "onnx2tf", *order], folder / "onnx2tf.log", folder)
    path = task.folder / made.name / f"{given.stem}_full_integer_quant.tflite"
    if not path.is_file():
        raise BadInput(
            f"expected onnx2tf to write {path}, found no such file: see {folder / 'onnx2tf.log'}, it is left out."
        )
    return path
