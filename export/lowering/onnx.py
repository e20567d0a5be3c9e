"""The deploy graph in ONNX operators, every value named after the student's step that computes it.

In int8 a step stands between DequantizeLinear and QuantizeLinear, the form that ONNX Runtime, TensorRT, OpenVINO and
QNN turn into integer kernels; steps that only move values work on the integers. Values are stored as uint8, integer and
zero point of the student plus 128: the same arithmetic, for which ONNX Runtime has fast kernels everywhere (int8 ones
are eight times slower on x86-64, or stay float). In a mix, values of int16 steps are int16 (opset 21), those of float steps
real, and a reader of another arithmetic converts them. Tensors are NCHW; DepthToSpace has the mode DCR, which is the deploy
graph's channel order.
"""

from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from compress.deploy import INPUT, Add, Clip, Conv, DeployGraph, DepthToSpace, PReLU, Repeat, Sigmoid
from compress.quantization.scheme import LOW, Arithmetic, Quantization
from export.metadata import INTEGER, Precision, Sizes

OUTPUT = "sr"
OPSET = 18
OPSET_OF_INT16 = 21  # in QuantizeLinear and DequantizeLinear
IR_VERSION = 10  # of the same time as the opset: runtimes refuse files of a newer one


def onnx_model(
    graph: DeployGraph, quantization: Quantization | None, precision: Precision, sizes: Sizes = "any"
) -> onnx.ModelProto:
    """The model: "lr" (batch, 3, height, width) to "sr" (batch, 3, s*height, s*width).

    Of integers: images are uint8 pixels. Otherwise they are float32 in [0, 1], in 'float16' too, where all between them
    is float16.

    Args:
        graph, quantization: see `export.exporting.parts`.
        precision: what to write.
        sizes: (height, width) of LR images; one is baked in, for one image, else all sizes are free.
    """
    fixed = sizes[0] if sizes != "any" and len(sizes) == 1 else None
    return _Writer(graph, quantization, precision).model(fixed)


class _Writer:
    """Appends nodes and constants to one graph. Values are known by their names."""

    def __init__(self, graph: DeployGraph, quantization: Quantization | None, precision: Precision):
        self.graph, self.quantization, self.precision = graph, quantization, precision
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.integers = precision in INTEGER
        self.real = np.float16 if precision == "float16" else np.float32

    def model(self, fixed: list[int] | None) -> onnx.ModelProto:
        graph, kind = self.graph, TensorProto.UINT8 if self.integers else TensorProto.FLOAT
        values = {INPUT: self._cast(INPUT, f"{INPUT}_half", TensorProto.FLOAT16)}
        for name, operator, inputs in graph.steps():
            arguments = [values[i] for i in inputs]
            values[name] = self._integer_step(name, operator, inputs, arguments) if self.integers else (
                self._real_step(name, operator, arguments)
            )  # fmt: skip
        sr = values[graph.output]
        if self.quantization and self.integers:
            sr = self._read(graph.output, sr, "int8", "images")
        self._name_output(self._cast(sr, f"{OUTPUT}_float", TensorProto.FLOAT))
        shapes: list[list[int | str]] = [["batch", 3, "height", "width"]]
        shapes.append(["batch", 3, f"{graph.scale}*height", f"{graph.scale}*width"])
        if fixed:
            shapes = [[1, 3, *fixed], [1, 3, *(graph.scale * side for side in fixed)]]
        images = [helper.make_tensor_value_info(n, kind, s) for n, s in zip((INPUT, OUTPUT), shapes, strict=True)]
        made = helper.make_graph(self.nodes, "pocketsr", images[:1], images[1:], list(self.constants.values()))
        return helper.make_model(made, opset_imports=[helper.make_opsetid("", self._opset())], ir_version=IR_VERSION)

    def _opset(self) -> int:
        wide = self.integers and self.quantization and "int16" in self.quantization.arithmetic.values()
        return OPSET_OF_INT16 if wide else OPSET

    def _real_step(self, name: str, operator: nn.Module, x: list[str]) -> str:
        if isinstance(operator, Conv):
            parts = [self._weight(name, operator), self._constant(f"{name}_bias", _array(operator.bias, self.real))]
            return self._conv(name, operator, [*x, *parts])
        return self._plain(name, operator, x)

    def _integer_step(self, name: str, operator: nn.Module, inputs: tuple[str, ...], x: list[str]) -> str:
        assert self.quantization is not None
        kind = self.quantization.of(name)
        if kind == "float":
            return self._real_step(name, operator, [self._real(i, one, name) for i, one in zip(inputs, x, strict=True)])
        x = [self._read(i, one, kind, name) for i, one in zip(inputs, x, strict=True)]
        if isinstance(operator, (Repeat, DepthToSpace)) and kind == "int8":  # moves values only: same scale
            return self._plain(name, operator, x)
        given, wanted = self.quantization.grid(inputs[0], kind), self.quantization.grid(name, kind)
        if isinstance(operator, Clip) and kind == "int8" and given == wanted:
            return x[0]  # 8 bits of scale 1/255 cannot leave [0, 1]
        real = [self._dequantized(i, one, kind, name) for i, one in zip(inputs, x, strict=True)]
        if isinstance(operator, Conv):
            parts = [self._weight(name, operator), self._integer_bias(name, inputs[0])]
            made = self._conv(f"{name}_real", operator, [*real, *parts])
        else:
            made = self._plain(f"{name}_real", operator, real)
        return self._node("QuantizeLinear", name, [made, *self._grid(name, kind)])

    def _real(self, value: str, x: str, reader: str) -> str:
        """A value as a float step reads it."""
        assert self.quantization is not None
        own = self.quantization.of(value)
        return x if own == "float" else self._dequantized(value, x, own, reader)

    def _read(self, value: str, x: str, kind: Arithmetic, reader: str) -> str:
        """A value as a step of that arithmetic reads it."""
        assert self.quantization is not None
        name = f"{value}_{kind}_for_{reader}"
        if self.quantization.of(value) == kind or any(name in node.output for node in self.nodes):
            return x if self.quantization.of(value) == kind else name
        return self._node("QuantizeLinear", name, [self._shielded(value, x, name), *self._grid(value, kind)])

    def _shielded(self, value: str, x: str, reader: str) -> str:
        """The real value of another arithmetic. After a float step stands an operator that changes nothing: ONNX Runtime
        makes int8 weights of its own for a float convolution right between DequantizeLinear and QuantizeLinear."""
        real = self._real(value, x, reader)
        if real != x:
            return real
        lowest = self._constant("lowest", np.array(np.finfo(np.float32).min, np.float32))
        return self._node("Max", f"{reader}_real", [real, lowest])

    def _conv(self, name: str, operator: Conv, inputs: list[str]) -> str:
        side, padding = operator.weight.shape[-1], operator.padding
        fused = operator.activation == "relu"
        made = self._node(
            "Conv", f"{name}_sum" if fused else name, inputs, kernel_shape=[side, side], pads=[padding] * 4
        )
        return self._node("Relu", name, [made]) if fused else made

    def _plain(self, name: str, operator: nn.Module, x: list[str]) -> str:
        """An operator without weights."""
        if isinstance(operator, PReLU):
            return self._node("LeakyRelu", name, x, alpha=float(operator.slope))
        if isinstance(operator, Add):
            return self._node("Add", name, x)
        if isinstance(operator, Sigmoid):
            return self._node("Sigmoid", name, x)
        if isinstance(operator, DepthToSpace):
            return self._node("DepthToSpace", name, x, blocksize=operator.block, mode="DCR")
        if isinstance(operator, Repeat):
            return self._node("Concat", name, x * operator.times, axis=1)
        if isinstance(operator, Clip):
            limits = [self._constant(f"{word}_pixel", np.array(value, self.real)) for word, value in _LIMITS]
            return self._node("Clip", name, [*x, *limits])
        raise TypeError(f"no ONNX form of {type(operator).__name__}")

    def _weight(self, name: str, operator: Conv) -> str:
        if self.quantization is None or (self.integers and self.quantization.of(name) == "float"):
            return self._constant(f"{name}_weight", _array(operator.weight, self.real))
        layer = self.quantization.layers[name]
        stored = self._constant(f"{name}_weight_int8", _array(layer.weight, np.int8))
        scale = self._constant(f"{name}_weight_scale", _array(layer.scale, np.float32))
        zero = self._constant(f"{name}_weight_zero", np.zeros(len(layer.scale), np.int8))
        return self._node("DequantizeLinear", f"{name}_weight", [stored, scale, zero], axis=0)

    def _integer_bias(self, name: str, given: str) -> str:
        assert self.quantization is not None
        layer, unit = self.quantization.layers[name], self.quantization.activations[given].scale
        stored = self._constant(f"{name}_bias_int32", _array(layer.bias, np.int32))
        scale = self._constant(f"{name}_bias_scale", _array(layer.scale * unit, np.float32))
        return self._node("DequantizeLinear", f"{name}_bias", [stored, scale], axis=0)

    def _dequantized(self, value: str, x: str, kind: Arithmetic, reader: str) -> str:
        """The real values for one reader: a DequantizeLinear of its own, which fusions ask for."""
        name = f"{x}_for_{reader}"
        if any(name in node.output for node in self.nodes):  # x + x
            return name
        return self._node("DequantizeLinear", name, [x, *self._grid(value, kind)])

    def _grid(self, value: str, kind: Arithmetic) -> list[str]:
        assert self.quantization is not None
        scale, prefix = self.quantization.grid(value, kind), value if kind == "int8" else f"{value}_{kind}"
        zero = np.array(scale.zero_point - LOW, np.uint8) if kind == "int8" else np.array(0, np.int16)
        return [
            self._constant(f"{prefix}_scale", np.array(scale.scale, np.float32)),
            self._constant(f"{prefix}_zero", zero),
        ]

    def _cast(self, value: str, name: str, to: int) -> str:
        return self._node("Cast", name, [value], to=to) if self.precision == "float16" else value

    def _name_output(self, value: str) -> None:
        if value == OUTPUT:
            return
        self._rename(OUTPUT, f"{OUTPUT}_before")  # a step of that name which something follows
        self._rename(value, OUTPUT)

    def _rename(self, old: str, new: str) -> None:
        for node in self.nodes:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    if name == old:
                        names[i] = new

    def _constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.constants.setdefault(name, numpy_helper.from_array(value, name))
        return name

    def _node(self, kind: str, name: str, inputs: Iterable[str], **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name


_LIMITS = (("darkest", 0.0), ("brightest", 1.0))


def _array(tensor: Tensor, kind: type) -> NDArray[np.generic]:
    return np.ascontiguousarray(tensor.detach().cpu().numpy().astype(kind))
