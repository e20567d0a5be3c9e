"""Quantized graphs as their engines run them: what stands between dequantize and quantize as one integer operator.

ONNX (QDQ) and Core ML write an integer convolution as dequantize, convolution, quantize, and leave the fusion to the
engine. Without it every value would seem to be stored as float.
"""

from dataclasses import replace

from export.audit.contents import Contents, Operator

TO_REAL, TO_INTEGER = frozenset({"DequantizeLinear", "dequantize"}), frozenset({"QuantizeLinear", "quantize"})
ACTIVATIONS = frozenset({"Relu", "Clip", "LeakyRelu", "relu", "relu6", "clip", "leaky_relu"})
MOVES = frozenset(
    {"Concat", "DepthToSpace", "SpaceToDepth", "Tile", "Transpose", "Reshape", "Slice", "Identity"}
    | {"concat", "depth_to_space", "pixel_shuffle", "tile", "transpose", "reshape", "slice_by_index", "identity"}
)


def folded(contents: Contents) -> Contents:
    """The same file with every operator that reads only dequantized values, and whose result is only quantized (after an
    activation too), put in one with these; operators that only move dequantized values move the integers."""
    readers: dict[str, list[Operator]] = {}
    for operator in contents.operators:
        for name in set(operator.inputs):
            readers.setdefault(name, []).append(operator)
    tensors, fixed, kept = dict(contents.tensors), contents.fixed, set(contents.outputs)
    integers: dict[str, str] = {}  # of a real value that was an integer just before, by name
    gone: set[str] = set()
    operators: list[Operator] = []
    for operator in contents.operators:
        if operator.name in gone:
            continue
        if operator.kind in TO_REAL and not set(operator.outputs) <= fixed:
            integers[operator.outputs[0]] = operator.inputs[0]
        computed = contents.computed_inputs(operator)
        if operator.kind in TO_REAL | TO_INTEGER or not computed or not set(computed) <= set(integers):
            operators.append(operator)
            continue
        inputs = tuple(integers.get(name, name) for name in operator.inputs)
        chain = _chain(operator, readers, kept)
        if chain:
            operators.append(replace(operator, name=chain[-1].name, inputs=inputs, outputs=chain[-1].outputs))
            gone |= {one.name for one in chain}
        elif operator.kind in MOVES and not set(operator.outputs) & kept:
            (made,) = operator.outputs
            tensors[made] = replace(tensors[made], dtype=tensors[integers[computed[0]]].dtype)
            integers[made] = made
            operators.append(replace(operator, inputs=inputs))
        else:
            operators.append(operator)
    read = {name for operator in operators for name in operator.inputs} | kept
    operators = [one for one in operators if one.kind not in TO_REAL or set(one.outputs) & read]
    return replace(contents, operators=operators, tensors=tensors)


def _chain(operator: Operator, readers: dict[str, list[Operator]], kept: set[str]) -> list[Operator]:
    """What follows, up to the quantize that ends it; empty if anything else reads a value on the way."""
    chain: list[Operator] = []
    while True:
        following = [one for name in operator.outputs for one in readers.get(name, [])]
        if len(following) != 1 or set(operator.outputs) & kept:
            return []
        operator = following[0]
        chain.append(operator)
        if operator.kind in TO_INTEGER:
            return chain
        if operator.kind not in ACTIVATIONS:
            return []
