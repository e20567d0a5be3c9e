"""`python tensorflow_int8.py GIVEN.npz MADE.tflite`: needs TensorFlow and nothing of ours.

The anchor network as one writes it in TensorFlow: the anchor is a concatenation of copies, the clip follows
depth_to_space. See `tensorflow_converter.anchor_arrays` for what is read.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf


class Anchor(tf.Module):
    """(1, side, side, 3) in [0, 1] to (1, scale * side, scale * side, 3)."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        super().__init__()
        self.scale = int(arrays["scale"])
        count = sum(name.startswith("weight") for name in arrays)
        self.layers = [(tf.constant(arrays[f"weight{i}"]), tf.constant(arrays[f"bias{i}"])) for i in range(count)]

    @tf.function
    def __call__(self, lr: tf.Tensor) -> tf.Tensor:
        x = lr
        for i, (weight, bias) in enumerate(self.layers):
            x = tf.nn.bias_add(tf.nn.conv2d(x, weight, 1, "SAME"), bias)
            x = tf.nn.relu(x) if i < len(self.layers) - 1 else x
        x = x + tf.concat([lr] * self.scale**2, axis=-1)
        return tf.clip_by_value(tf.nn.depth_to_space(x, self.scale), 0.0, 1.0)


def convert(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The full-integer .tflite with int8 images, as TensorFlow's guide to post-training quantization makes it."""
    network, crops = Anchor(arrays), arrays["crops"]
    function = network.__call__.get_concrete_function(tf.TensorSpec([1, *crops.shape[1:]], tf.float32))

    def representative() -> Iterator[list[np.ndarray]]:
        for i in range(len(crops)):
            yield [crops[i : i + 1]]

    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


if __name__ == "__main__":
    given, made = map(Path, sys.argv[1:])
    made.write_bytes(convert(dict(np.load(given))))
