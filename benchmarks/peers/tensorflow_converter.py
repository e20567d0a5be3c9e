"""TensorFlow's converter, in an environment of its own: full-integer quantization of the network in TensorFlow operators."""

from pathlib import Path

import numpy as np

from benchmarks.peers import Task
from benchmarks.peers.environment import run_peer
from compress.deploy import shuffle_order
from compress.errors import BadInput


def write_int8(task: Task) -> Path:
    """Writes the int8 .tflite. Raises BadInput for another network, and where TensorFlow cannot be installed or fails."""
    if task.student.architecture != "anchor":
        raise BadInput(
            f"expected an anchor network for TensorFlow's converter, found {task.student.architecture}: it is left out."
        )
    given, path = task.folder / "anchor.npz", task.folder / "tensorflow_int8.tflite"
    np.savez(given, **anchor_arrays(task))
    run_peer("tensorflow", [Path(__file__).with_name("tensorflow_int8.py"), given, path], path.with_suffix(".log"))
    return path


def anchor_arrays(task: Task) -> dict[str, np.ndarray]:
    """What `tensorflow_int8.py` reads: 'weight0' (3, 3, in, out), 'bias0' (out,) and so on for all convolutions, the last in
    the order of TensorFlow's depth_to_space; 'scale'; 'crops' (N, side, side, 3) in [0, 1]."""
    scale, arrays = task.student.scale, {"crops": task.channels_last()}
    layers = task.student.network().folded().convolutions()
    for i, layer in enumerate(layers):
        weight, bias = layer.weight.detach(), layer.bias.detach()
        order = shuffle_order(len(bias), scale) if layer is layers[-1] else slice(None)
        arrays |= {f"weight{i}": weight[order].permute(2, 3, 1, 0).numpy(), f"bias{i}": bias[order].numpy()}
    return arrays | {"scale": np.array(scale)}
