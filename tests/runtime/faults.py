"""Faults that exporters, converters and people make, planted into finished files of an anchor student."""

from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

Change = Callable[[Any], None]
TYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.INT32: np.int32,
}


def convolutions(model: Any) -> list[Any]:
    """CONV_2D operators of a parsed .tflite, head first, tail last."""
    kinds = [code.builtinCode for code in model.operatorCodes]
    return [op for op in model.subgraphs[0].operators if kinds[op.opcodeIndex] == schema.BuiltinOperator.CONV_2D]


def values(model: Any, index: int) -> NDArray[Any]:
    """A constant, (out, height, width, in) for weights; a copy."""
    tensor = model.subgraphs[0].tensors[index]
    return np.frombuffer(bytes(model.buffers[tensor.buffer].data), TYPES[tensor.type]).reshape(tensor.shape).copy()


def store(model: Any, index: int, array: NDArray[Any]) -> None:
    tensor = model.subgraphs[0].tensors[index]
    model.buffers[tensor.buffer].data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)


def outputs_in_order(order: NDArray[np.int64]) -> Change:
    """Permutes the channels that the last convolution gives to DEPTH_TO_SPACE: 3 colours of every sub-pixel in turn."""

    def change(model: Any) -> None:
        _, weights, bias = (int(i) for i in convolutions(model)[-1].inputs)
        for index in (weights, bias):
            store(model, index, values(model, index)[order])
            quantization = model.subgraphs[0].tensors[index].quantization
            if quantization is not None and quantization.scale is not None and len(quantization.scale) > 1:
                quantization.scale = np.asarray(quantization.scale)[order]

    return change


def swapped_colours_at_the_input(model: Any) -> None:
    index = int(convolutions(model)[0].inputs[1])
    store(model, index, values(model, index)[..., ::-1])


def swapped_colours_at_the_output(scale: int) -> Change:
    return outputs_in_order(np.arange(3 * scale**2).reshape(-1, 3)[:, ::-1].ravel())


def swapped_colours_at_both_ends(scale: int) -> Change:
    def change(model: Any) -> None:
        swapped_colours_at_the_input(model)
        swapped_colours_at_the_output(scale)(model)

    return change


def shuffled_by_one(scale: int) -> Change:
    """Every sub-pixel goes to the place of the next."""
    return outputs_in_order(np.roll(np.arange(3 * scale**2).reshape(-1, 3), 1, axis=0).ravel())


def shuffled_columns_first(scale: int) -> Change:
    """Rows and columns of the sub-pixels exchanged."""
    return outputs_in_order(np.arange(3 * scale**2).reshape(scale, scale, 3).transpose(1, 0, 2).ravel())


def channel_off(layer: int, channel: int, factor: float = 1.1) -> Change:
    """One output channel of one convolution, `factor` times as large."""

    def change(model: Any) -> None:
        index = int(convolutions(model)[layer].inputs[1])
        quantization = model.subgraphs[0].tensors[index].quantization
        if model.subgraphs[0].tensors[index].type == schema.TensorType.INT8:
            scales = np.array(quantization.scale)
            scales[channel] *= factor
            quantization.scale = scales
        else:
            array = values(model, index)
            array[channel] *= np.float32(factor)
            store(model, index, array)

    return change


def weight_off(layer: int) -> Change:
    """The largest number of one convolution by a tenth nearer to 0."""

    def change(model: Any) -> None:
        index = int(convolutions(model)[layer].inputs[1])
        array = values(model, index)
        place = np.unravel_index(np.abs(array.astype(np.float64)).argmax(), array.shape)
        array[place] = np.float64(array[place]) * 0.9
        store(model, index, array)

    return change


def biases_off(layer: int) -> Change:
    """All biases of one convolution larger by a tenth."""

    def change(model: Any) -> None:
        index = int(convolutions(model)[layer].inputs[2])
        array = values(model, index)
        store(model, index, (array * 1.1).astype(array.dtype))

    return change


def kernel_shifted(model: Any) -> None:
    """The last convolution looks one LR pixel to the side."""
    index = int(convolutions(model)[-1].inputs[1])
    store(model, index, np.roll(values(model, index), 1, axis=2))


def residual_half_a_pixel_off(scale: int) -> Change:
    """What the convolutions add, moved by half an LR pixel; where it leaves the LR pixel, the kernel moves on by one."""
    half = scale // 2

    def change(model: Any) -> None:
        _, weights, bias = (int(i) for i in convolutions(model)[-1].inputs)
        moved, biases = (
            values(model, i).reshape(scale, scale, 3, *values(model, i).shape[1:]) for i in (weights, bias)
        )
        moved = np.roll(moved, half, axis=1)
        moved[:, :half] = np.roll(moved[:, :half], 1, axis=4)
        store(model, weights, moved)
        store(model, bias, np.roll(biases, half, axis=1))
        for index in (weights, bias):
            quantization = model.subgraphs[0].tensors[index].quantization
            if quantization is not None and quantization.scale is not None and len(quantization.scale) > 1:
                scales = np.asarray(quantization.scale).reshape(scale, scale, 3)
                quantization.scale = np.roll(scales, half, axis=1).ravel()

    return change


def zero_point_off(layer: int, by: int) -> Change:
    """Of the values that a convolution makes, which the next one reads with the same wrong zero point."""

    def change(model: Any) -> None:
        quantization = model.subgraphs[0].tensors[int(convolutions(model)[layer].outputs[0])].quantization
        quantization.zeroPoint = np.asarray(quantization.zeroPoint) + by

    return change


def image_zero_point_off(by: int, *, before_the_shuffle: bool = False) -> Change:
    """Of the SR image, or of the values that DEPTH_TO_SPACE makes it of."""

    def change(model: Any) -> None:
        last = model.subgraphs[0].operators[-1]
        index = int(last.inputs[0] if before_the_shuffle else last.outputs[0])
        quantization = model.subgraphs[0].tensors[index].quantization
        quantization.zeroPoint = np.asarray(quantization.zeroPoint) + by

    return change
