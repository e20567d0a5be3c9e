"""Edits of a finished .tflite: metadata, names, the type of its images, weights of a given scale."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from compress.deploy import DeployGraph
from compress.quantization.scheme import PIXELS, IntegerWeights
from export.audit import operator_name
from export.metadata import ENTRY, Metadata


def parse(content: bytes) -> Any:
    """The flatbuffer as objects (`ModelT`)."""
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_from_bytearray(bytearray(content))


def serialize(model: Any) -> bytes:
    """The inverse of `parse`."""
    from ai_edge_litert.tools import flatbuffer_utils

    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def set_image_type(model: Any, dtype: str) -> None:
    """Makes an int8 file take and give 'uint8' pixels or 'float32' ones in [0, 1], by an operator at each end.

    What was the image is called "lr_int8" and "sr_int8" then. The values are those of the int8 file: uint8 is int8
    plus 128, float32 is uint8 / 255.
    """
    from ai_edge_litert import schema_py_generated as schema

    operators, types = schema.BuiltinOperator, schema.TensorType
    kind = {"uint8": types.UINT8, "float32": types.FLOAT32}[dtype]
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    inside, made = int(graph.inputs[0]), int(graph.outputs[0])
    given, shown = (_image_like(graph, graph.tensors[index], kind) for index in (inside, made))
    back = operators.DEQUANTIZE if dtype == "float32" else operators.QUANTIZE
    graph.operators.insert(0, _operator(model, operators.QUANTIZE, given, inside))
    graph.operators.append(_operator(model, back, made, shown))
    graph.tensors[inside].name, graph.tensors[made].name = "lr_int8", "sr_int8"
    graph.inputs, graph.outputs = [given], [shown]
    signature.inputs[0].tensorIndex, signature.outputs[0].tensorIndex = given, shown


def set_integer_weights(model: Any, layers: Iterable[IntegerWeights]) -> None:
    """Gives the convolutions of a float32 file int8 weights with the scales of a student; biases and values stay float.

    TFLite's kernels then quantize what enters a convolution by its own extremes ("dynamic range").

    Args:
        model: of a file that was made of `weight * scale`, which tells the layers apart.
        layers: of the student, in any order.

    Raises:
        ValueError: a convolution whose weights are none of them.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph, waiting = model.subgraphs[0], list(layers)
    for operator in graph.operators:
        if model.operatorCodes[operator.opcodeIndex].builtinCode != schema.BuiltinOperator.CONV_2D:
            continue
        tensor = graph.tensors[operator.inputs[1]]
        found = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32).reshape(tensor.shape)
        layer = next((one for one in waiting if np.array_equal(_real(one), found)), None)
        if layer is None:
            raise ValueError("a convolution of the file has weights that are none of the student's")
        waiting.remove(layer)
        integers = layer.weight.permute(0, 2, 3, 1).contiguous().numpy()
        model.buffers[tensor.buffer].data = np.frombuffer(integers.tobytes(), np.uint8)
        tensor.type = schema.TensorType.INT8
        tensor.quantization = _scales(layer.scale.numpy(), np.zeros(len(layer.scale), np.int64))


def add_metadata(model: Any, metadata: Metadata) -> None:
    """Adds the metadata buffer, and names the image tensors "lr" and "sr"."""
    from ai_edge_litert import schema_py_generated as schema

    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(metadata.to_json().encode())
    entry.name, entry.buffer = ENTRY, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    graph.tensors[graph.inputs[0]].name, graph.tensors[graph.outputs[0]].name = "lr", "sr"
    signature.inputs[0].name, signature.outputs[0].name = "lr", "sr"
    model.description = f"PocketSR {metadata.architecture} x{metadata.scale} {metadata.precision}"


def rename(model: Any, steps: DeployGraph | None) -> None:
    """Names tensors after the student's step whose value they hold, others after the operator that makes them, as
    "mul_3"; constants after the layer that reads them: "head/1" is the second input of "head"."""
    from export.lowering.names import step_tensors

    graph = model.subgraphs[0]
    found = step_tensors(model, steps) if steps else {}
    names = {tensor: step for step, tensor in reversed(found.items())}  # the first of equal ones
    made = {int(i) for operator in graph.operators for i in operator.outputs}
    for number, operator in enumerate(graph.operators):
        output = int(operator.outputs[0])
        name = names.get(output, f"{operator_name(model, operator).lower()}_{number}")
        graph.tensors[output].name = (
            f"{name}_before" if name == "sr" else name
        )  # a step of that name which others follow
        for position, index in enumerate(operator.inputs):
            if index not in made and index not in graph.inputs:
                graph.tensors[index].name = f"{name}/{position}"


def _real(layer: IntegerWeights) -> np.ndarray:
    return (layer.weight.float() * layer.scale[:, None, None, None]).permute(0, 2, 3, 1).numpy()


def _image_like(graph: Any, image: Any, kind: int) -> int:
    """Index of a new tensor of the same shape as an int8 image, for the same pixels."""
    from ai_edge_litert import schema_py_generated as schema

    tensor = schema.TensorT()
    tensor.shape, tensor.shapeSignature, tensor.type, tensor.buffer = image.shape, image.shapeSignature, kind, 0
    if kind == schema.TensorType.UINT8:
        tensor.quantization = _scales(np.array([PIXELS.scale], np.float32), np.zeros(1, np.int64))
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _scales(scale: np.ndarray, zero_point: np.ndarray) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    parameters = schema.QuantizationParametersT()
    parameters.scale, parameters.zeroPoint, parameters.quantizedDimension = scale, zero_point, 0
    return parameters


def _operator(model: Any, kind: int, given: int, made: int) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    operator = schema.OperatorT()
    codes = [code.builtinCode for code in model.operatorCodes]
    if kind not in codes:
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = kind, kind, 2
        model.operatorCodes.append(code)
        codes.append(kind)
    operator.opcodeIndex, operator.inputs, operator.outputs = codes.index(kind), [given], [made]
    return operator
