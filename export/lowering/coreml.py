"""The deploy graph as a Core ML ML Program, every value named after the student's step that computes it.

Images are 8-bit pictures on both sides: their scale 1/255 is part of the file, and the last two operators multiply by
255 and round, so that no runtime has to. In int8 every value is followed by `quantize` and `dequantize` with the
student's own scales, and weights are `constexpr` integers: what coremltools' own W8A8 models consist of. Float layers
of a mix have neither.
"""

from collections.abc import Callable, Collection
from typing import Any, Literal

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import get_new_symbol
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.deploy import INPUT, Add, Clip, Conv, DeployGraph, DepthToSpace, PReLU, Repeat, Sigmoid
from compress.quantization.scheme import ActivationScale, Quantization
from export.metadata import INTEGER, Precision, Sizes
from export.sparse.coreml import sparse_weight

Target = Literal["iOS17", "iOS18"]
Compute = Literal["float16", "float32"]
TARGETS = {"iOS17": ct.target.iOS17, "iOS18": ct.target.iOS18}
OUTPUT = "sr"
RESCALING = "common::distributive_quantized_binary_op_scale_normalization"  # divides an addition's three scales by one
LARGEST = 4096  # pixels of a side where any size is allowed; Core ML wants an upper bound


def coreml_model(
    graph: DeployGraph,
    quantization: Quantization | None,
    precision: Precision,
    *,
    compute: Compute,
    target: Target,
    sizes: Sizes,
    picture: bool = True,
    sparse: Collection[str] = (),
) -> Any:
    """The model (`ct.models.MLModel`): picture "lr" to picture "sr", RGB.

    Args:
        graph, quantization: see `export.exporting.parts`.
        precision: what to write.
        compute: type of real values between the images. The Neural Engine takes float16 only.
        target: least operating system; iOS17 is macOS 14, iOS18 macOS 15.
        sizes: (height, width) of LR pictures; one is baked in.
        picture: False for the beginning of a graph, whose output is none.
        sparse: convolutions whose weights are stored sparse.
    """
    deployment = TARGETS[target]
    fixed = sizes[0] if sizes != "any" and len(sizes) == 1 else (get_new_symbol(), get_new_symbol())
    steps = _Steps(graph, quantization, precision, target, sparse)
    program = mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, *fixed))], opset_version=deployment)(
        lambda lr: steps.image(lr)  # its argument's name is the input's
    )
    layout = ct.colorlayout.RGB
    if picture:
        program.functions["main"].set_output_types([ct.ImageType(name=OUTPUT, color_layout=layout)])
    pipeline = ct.PassPipeline.DEFAULT
    pipeline.remove_passes({RESCALING})
    return ct.convert(
        program,
        source="milinternal",
        convert_to="mlprogram",
        minimum_deployment_target=deployment,
        compute_precision=ct.precision.FLOAT16 if compute == "float16" else ct.precision.FLOAT32,
        inputs=[ct.ImageType(name=INPUT, shape=_shape(sizes), scale=1 / 255, color_layout=layout)],
        pass_pipeline=pipeline,
        skip_model_load=True,
    )


def _shape(sizes: Sizes) -> Any:
    if sizes == "any":
        side = ct.RangeDim(1, LARGEST, default=64)
        return ct.Shape(shape=(1, 3, side, side))
    shapes = [(1, 3, *size) for size in sizes]
    return shapes[0] if len(shapes) == 1 else ct.EnumeratedShapes(shapes=shapes, default=shapes[0])


class _Steps:
    """Writes the steps of a graph into the MIL program that is being built."""

    def __init__(
        self,
        graph: DeployGraph,
        quantization: Quantization | None,
        precision: Precision,
        target: Target,
        sparse: Collection[str],
    ):
        self.graph, self.quantization, self.target, self.sparse = graph, quantization, target, sparse
        self.rounds = precision in INTEGER

    def image(self, lr: Any) -> Any:
        values = {INPUT: self._rounded(INPUT, lr)}
        for name, operator, inputs in self.graph.steps():
            value = self._computed(name, operator, [self._read(i, values[i], name) for i in inputs])
            moved = isinstance(operator, (Repeat, DepthToSpace))  # moves values only: same scale
            values[name] = value if moved else self._rounded(name, value)
        sr = self._read(self.graph.output, values[self.graph.output], "images")
        pixels = mb.mul(x=sr, y=np.float32(255), name=f"{OUTPUT}_pixels")
        return mb.round(x=pixels, name=OUTPUT)

    def _computed(self, name: str, operator: nn.Module, x: list[Any]) -> Any:
        called = f"{name}_real" if self.rounds or name == OUTPUT else name
        if isinstance(operator, Conv):
            fused = operator.activation == "relu"
            sum_ = mb.conv(
                x=x[0],
                weight=self._weight(name, operator),
                bias=self._bias(name, operator),
                pad_type="custom",
                pad=[operator.padding] * 4,
                name=f"{name}_sum" if fused else called,
            )
            return mb.relu(x=sum_, name=called) if fused else sum_
        if isinstance(operator, PReLU):
            return mb.leaky_relu(x=x[0], alpha=np.float32(operator.slope), name=called)
        if isinstance(operator, Add):
            return mb.add(x=x[0], y=x[1], name=called)
        if isinstance(operator, Sigmoid):
            return mb.sigmoid(x=x[0], name=called)
        if isinstance(operator, Clip):
            return mb.clip(x=x[0], alpha=np.float32(0), beta=np.float32(1), name=called)
        if isinstance(operator, DepthToSpace):
            return mb.depth_to_space(x=x[0], block_size=operator.block, name=called)
        if isinstance(operator, Repeat):
            return mb.tile(x=x[0], reps=(1, operator.times, 1, 1), name=called)
        raise TypeError(f"no Core ML form of {type(operator).__name__}")

    def _weight(self, name: str, operator: Conv) -> Any:
        called, packed = f"{name}_weight", self.target == "iOS17"
        if self.quantization is None or (self.rounds and self.quantization.of(name) == "float"):
            weight = _array(operator.weight, np.float32)
            return sparse_weight(weight, None, packed=packed, name=called) if name in self.sparse else weight
        layer = self.quantization.layers[name]
        integers, scale = _array(layer.weight, np.int8), _array(layer.scale, np.float32)
        if name in self.sparse:
            return sparse_weight(integers, scale, packed=packed, name=called)
        if packed:
            return mb.constexpr_affine_dequantize(
                quantized_data=integers, zero_point=np.int8(0), scale=scale, axis=np.int32(0), name=called
            )
        return mb.constexpr_blockwise_shift_scale(data=integers, scale=scale[:, None, None, None], name=called)

    def _bias(self, name: str, operator: Conv) -> NDArray[np.generic]:
        if self.quantization is None or not self.rounds or self.quantization.of(name) == "float":
            return _array(operator.bias, np.float32)
        layer = self.quantization.layers[name]
        given = self.quantization.activations[self.graph.inputs[name][0]].scale
        return _array(layer.bias.double() * layer.scale.double() * given, np.float32)

    def _rounded(self, name: str, value: Any) -> Any:
        if not self.rounds or (self.quantization and self.quantization.of(name) == "float"):
            return value
        return self._quantized(name, name, value)

    def _read(self, name: str, value: Any, reader: str) -> Any:
        """A value as a step reads it: what a float step made is rounded for an int8 one."""
        if not self.rounds or not self.quantization or self.quantization.of(name) == "int8":
            return value
        reads_float = self.quantization.of(reader) == "float"
        return value if reads_float else self._quantized(name, f"{name}_for_{reader}", value)

    def _quantized(self, name: str, called: str, value: Any) -> Any:
        assert self.quantization is not None
        grid = _grid(self.quantization.activations[name])
        integers = mb.quantize(input=value, output_dtype="int8", name=f"{called}_int8", **grid)
        return mb.dequantize(input=integers, name=f"{called}_dequantized", **grid)


def _grid(scale: ActivationScale) -> dict[str, Any]:
    return {"scale": np.float32(scale.scale), "zero_point": np.int8(scale.zero_point)}


def _array(tensor: Tensor, kind: Callable[..., Any]) -> NDArray[np.generic]:
    return np.ascontiguousarray(tensor.detach().cpu().numpy().astype(kind))
