"""A .tflite whose steps work in int8, int16 or float, written operator by operator.

litert-torch's converter merges neighbouring quantizers of different types, which such a file is full of. The deploy graph
is small enough to write its flatbuffer directly: native operators, a QUANTIZE or DEQUANTIZE wherever a step reads a
value of another arithmetic, the student's scales, and tensors named after the student's steps. Works on any image size.
"""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from numpy.typing import NDArray
from torch import nn

from compress.deploy import INPUT, Add, Clip, Conv, DeployGraph, DepthToSpace, PReLU, Repeat, Sigmoid
from compress.quantization.scheme import HIGH, LIMITS, ActivationScale, Arithmetic, Quantization

Shape = tuple[int, int, int, int]
TYPES = {"int8": schema.TensorType.INT8, "int16": schema.TensorType.INT16, "float": schema.TensorType.FLOAT32}
STORED = {
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.int64): schema.TensorType.INT64,
    np.dtype(np.float32): schema.TensorType.FLOAT32,
}
RELU, NONE = schema.ActivationFunctionType.RELU, schema.ActivationFunctionType.NONE
VERSIONS = {  # of an operator that takes int8, int16, float; TensorFlow's op_version.cc
    "CONV_2D": (3, 8, 1),
    "ADD": (2, 3, 1),
    "SUB": (2, 5, 1),
    "MUL": (2, 4, 1),
    "LEAKY_RELU": (2, 2, 1),
    "LOGISTIC": (2, 3, 1),
    "CONCATENATION": (2, 3, 1),
    "DEPTH_TO_SPACE": (2, 1, 1),
    "QUANTIZE": (2, 2, 1),
    "DEQUANTIZE": (2, 3, 1),
}


def mixed_tflite(graph: DeployGraph, quantization: Quantization, size: tuple[int, int]) -> bytes:
    """The flatbuffer: int8 pixels to int8 pixels, NHWC.

    Args:
        graph: equalized; see `export.exporting.parts`.
        quantization: with its arithmetic.
        size: (height, width) of the LR image that it is set to when it is opened.
    """
    writer = _Writer(graph, quantization)
    writer.write((1, *size, 3))
    return bytes(flatbuffer_utils.convert_object_to_bytearray(writer.model))


class _Writer:
    """Appends tensors and operators to one model. Values are known by name and arithmetic."""

    def __init__(self, graph: DeployGraph, quantization: Quantization):
        self.graph, self.quantization = graph, quantization
        self.model, self.sub = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.operatorCodes, self.model.subgraphs = 3, [], [self.sub]
        self.model.buffers = [schema.BufferT()]  # the first is empty by convention
        self.sub.name, self.sub.tensors, self.sub.operators = "main", [], []
        self.codes: dict[tuple[str, int], int] = {}
        self.values: dict[tuple[str, Arithmetic], int] = {}
        self.shapes: dict[str, Shape] = {}

    def write(self, shape: Shape) -> None:
        self.shapes[INPUT] = shape
        self.values[INPUT, "int8"] = self._value(INPUT, "int8")
        for name, operator, inputs in self.graph.steps():
            self.shapes[name] = self._shape(operator, self.shapes[inputs[0]])
            kind = self.quantization.of(name)
            self.values[name, kind] = self._step(name, operator, kind, [self._read(i, kind) for i in inputs], inputs)
        lr, sr = self.values[INPUT, "int8"], self._read(self.graph.output, "int8")
        self.sub.inputs, self.sub.outputs = [lr], [sr]
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.inputs, signature.outputs = "serving_default", [], []
        for ends, index in ((signature.inputs, lr), (signature.outputs, sr)):
            end = schema.TensorMapT()
            end.name, end.tensorIndex = self.sub.tensors[index].name, index
            ends.append(end)
        self.model.signatureDefs = [signature]

    def _shape(self, operator: nn.Module, given: Shape) -> Shape:
        n, height, width, channels = given
        if isinstance(operator, Conv):
            return n, height, width, len(operator.weight)
        if isinstance(operator, Repeat):
            return n, height, width, channels * operator.times
        if isinstance(operator, DepthToSpace):
            r = operator.block
            return n, height * r, width * r, channels // r**2
        return given

    def _step(self, name: str, operator: nn.Module, kind: Arithmetic, x: list[int], inputs: tuple[str, ...]) -> int:
        """Writes a step; its value's index."""
        if isinstance(operator, Clip) and kind == "int8":  # int8 of scale 1/255 cannot leave [0, 1]
            return x[0]
        if isinstance(operator, Conv):
            weights = self._weights(name, operator, kind, inputs[0])
            options = schema.Conv2DOptionsT()
            options.strideW = options.strideH = 1
            options.padding = schema.Padding.SAME
            options.fusedActivationFunction = RELU if operator.activation == "relu" else NONE
            if kind == "int16":
                options.quantizedBiasType = self.sub.tensors[weights[1]].type
            return self._operator("CONV_2D", kind, [x[0], *weights], self._value(name, kind), options)
        if isinstance(operator, Add):
            return self._operator("ADD", kind, x, self._value(name, kind), self._sum_options(schema.AddOptionsT()))
        if isinstance(operator, PReLU):
            return self._prelu(name, operator.slope, kind, x[0], inputs[0])
        if isinstance(operator, Sigmoid):
            return self._operator("LOGISTIC", kind, x, self._value(name, kind))
        if isinstance(operator, Repeat):
            return self._repeated(name, operator.times, kind, x[0])
        if isinstance(operator, DepthToSpace):
            return self._shuffled(name, operator.block, kind, x[0], inputs[0])
        raise TypeError(f"no TFLite form of {type(operator).__name__} in {kind}")

    def _read(self, value: str, kind: Arithmetic) -> int:
        """A value in that arithmetic: as it was made, or converted once for all that read it so."""
        own: Arithmetic = "int8" if value == INPUT else self.quantization.of(value)
        if (value, kind) not in self.values:
            operator = "DEQUANTIZE" if kind == "float" else "QUANTIZE"
            made = self._value(value, kind, f"{value}/{kind}")
            version_of: Arithmetic = own if "int16" not in (own, kind) else "int16"
            self.values[value, kind] = self._operator(operator, version_of, [self.values[value, own]], made)
        return self.values[value, kind]

    def _weights(self, name: str, operator: Conv, kind: Arithmetic, given: str) -> tuple[int, int]:
        """Indices of weight (out, k, k, in) and bias: int32, whose kernels scale sums with 31 bits, or, where 16-bit sums could
        overflow that, int64, whose kernels scale them with 15."""
        if kind == "float":
            weight = operator.weight.permute(0, 2, 3, 1).numpy()
            return self._constant(f"{name}/weight", weight), self._constant(f"{name}/bias", operator.bias.numpy())
        layer, scale = self.quantization.layers[name], self.quantization.grid(given, kind).scale
        scales = layer.scale.numpy()
        bias = layer.bias.double().numpy()
        if kind == "int16":
            bias = np.rint(bias * self.quantization.activations[given].scale / scale)
        weight = layer.weight.permute(0, 2, 3, 1).numpy()
        largest = -LIMITS[kind][0] * np.abs(weight.astype(np.int64)).sum((1, 2, 3)).max() + np.abs(bias).max()
        stored = bias.astype(np.int32 if kind == "int8" or largest < 2**31 else np.int64)
        return (
            self._constant(f"{name}/weight", weight, scales),
            self._constant(f"{name}/bias", stored, scales * np.float32(scale)),
        )

    def _prelu(self, name: str, slope: float, kind: Arithmetic, x: int, given: str) -> int:
        if kind != "int8":
            options = schema.LeakyReluOptionsT()
            options.alpha = slope
            return self._operator("LEAKY_RELU", kind, [x], self._value(name, kind), options)
        # relu(x) - relu(-slope * x), as `export.lowering.tflite` writes it and for the same reason
        grid = self.quantization.activations[given]
        if slope == 0:
            return self._times(name, name, 1.0, x, self.quantization.activations[name])
        parts = [
            self._times(name, f"{name}/{word}", by, x, ActivationScale(grid.scale * abs(by), zero))
            for word, by, zero in (("positive", 1.0, grid.zero_point), ("negative", -abs(slope), -1 - grid.zero_point))
        ]
        kinds = ("SUB", schema.SubOptionsT()) if slope > 0 else ("ADD", schema.AddOptionsT())
        return self._operator(kinds[0], kind, parts, self._value(name, kind), self._sum_options(kinds[1]))

    def _times(self, step: str, name: str, by: float, x: int, grid: ActivationScale) -> int:
        """relu(by * x) in int8, by the integer 127 or -127."""
        factor = np.full((1, 1, 1, 1), HIGH if by > 0 else -HIGH, np.int8)
        other = self._constant(f"{name}/factor", factor, np.array([abs(by) / HIGH], np.float32))
        options = schema.MulOptionsT()
        options.fusedActivationFunction = RELU
        made = self._tensor(name, self.shapes[step], TYPES["int8"], np.array([grid.scale]), grid.zero_point)
        return self._operator("MUL", "int8", [x, other], made, options)

    def _repeated(self, name: str, times: int, kind: Arithmetic, x: int) -> int:
        options = schema.ConcatenationOptionsT()
        options.axis = 3
        return self._operator("CONCATENATION", kind, [x] * times, self._value(name, kind), options)

    def _shuffled(self, name: str, block: int, kind: Arithmetic, x: int, given: str) -> int:
        options = schema.DepthToSpaceOptionsT()
        options.blockSize = block
        if kind != "int16":
            return self._operator("DEPTH_TO_SPACE", kind, [x], self._value(name, kind), options)
        # there is no 16-bit kernel, but one for float, in which the same values go through unchanged
        real = self._read(given, "float")
        moved = self._operator("DEPTH_TO_SPACE", "float", [real], self._value(name, "float", f"{name}/float"), options)
        return self._operator("QUANTIZE", "int16", [moved], self._value(name, kind))

    def _sum_options(self, options: Any) -> Any:
        options.potScaleInt16 = False
        return options

    def _value(self, value: str, kind: Arithmetic, name: str | None = None) -> int:
        """A new tensor for a value in that arithmetic."""
        shape = self.shapes[value]
        if kind == "float":
            return self._tensor(name or value, shape, TYPES[kind])
        grid = self.quantization.grid(value, kind)
        return self._tensor(name or value, shape, TYPES[kind], np.array([grid.scale]), grid.zero_point)

    def _constant(self, name: str, data: NDArray[Any], scales: NDArray[Any] | None = None) -> int:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        return self._tensor(name, data.shape, STORED[data.dtype], scales, 0, len(self.model.buffers) - 1)

    def _tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        kind: int,
        scales: NDArray[Any] | None = None,
        zero_point: int = 0,
        buffer: int = 0,
    ) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), kind, buffer
        if scales is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = [float(scale) for scale in scales]
            tensor.quantization.zeroPoint = [zero_point] * len(scales)
        self.sub.tensors.append(tensor)
        return len(self.sub.tensors) - 1

    def _operator(self, kind: str, arithmetic: Arithmetic, inputs: list[int], output: int, options: Any = None) -> int:
        operator, code = schema.OperatorT(), getattr(schema.BuiltinOperator, kind)
        version = VERSIONS[kind][("int8", "int16", "float").index(arithmetic)]
        if (kind, version) not in self.codes:
            entry = schema.OperatorCodeT()
            entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, code, version
            self.codes[kind, version] = len(self.model.operatorCodes)
            self.model.operatorCodes.append(entry)
        operator.opcodeIndex = self.codes[kind, version]
        operator.inputs, operator.outputs = inputs, [output]
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.sub.operators.append(operator)
        return output
