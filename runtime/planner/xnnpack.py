"""What XNNPACK keeps in memory for the part of a graph that it runs: its workspace, its pointers, its weights.

The rules are those of XNNPACK's src/memory-planner.c, src/runtime.c and src/operators/convolution-nhwc.c, as of 2025. Of
the processor they only depend on how wide its blocks of packed weights are.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from runtime.planner.graph import Graph, Step, Value, lives, pixels, rounded
from runtime.planner.greedy import place

POINTER = 8
ALIGNMENT, READS_ON = 64, 16  # of values in the workspace, and bytes after each that kernels may read
BLOCK_OF_OUTPUTS, BLOCK_OF_INPUTS = 16, 4  # of packed weights: output channels, and input channels of integers
MOST_PARTS = 5  # that it concatenates at once
DTYPES = frozenset({"float32", "int8", "uint8"})
CONVOLUTIONS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"})
IN_PLACE = {
    "ABS", "ADD", "CEIL", "DIV", "ELU", "FLOOR", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "MAXIMUM", "MINIMUM", "MUL",
    "NEG", "PRELU", "RELU", "RELU6", "RELU_0_TO_1", "RESHAPE", "ROUND", "SOFTMAX", "SQRT", "SQUARE", "SQUARED_DIFFERENCE",
    "SUB", "TANH",
}  # fmt: skip
CLAMPS = frozenset({"RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1"})
CLAMPED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "SUB", "MUL", "DIV", "MAX_POOL_2D", "AVERAGE_POOL_2D"})


def takes(graph: Graph, step: Step) -> bool:
    """Whether XNNPACK runs that step."""
    values = [graph.values[name] for name in (*step.inputs, *step.outputs) if not graph.values[name].fixed]
    if step.kind == "CONCATENATION" and len(step.inputs) > MOST_PARTS:
        return False
    if step.kind == "PRELU":
        return all(value.dtype == "float32" for value in values)
    return all(value.dtype in DTYPES for value in values)


def workspace(graph: Graph, steps: Sequence[Step], given_out: Collection[str]) -> int:
    """Bytes of the block for the values inside a partition, all but those `given_out`.

    A value that is written in place of an input that nobody else reads takes no room of its own.
    """
    steps, values = _rewritten(graph, steps)
    graph = replace(graph, values=values)
    inside = [name for step in steps for name in step.outputs if name not in given_out]
    found = {
        name: replace(life, size=rounded(life.size + READS_ON, ALIGNMENT))
        for name, life in lives(graph, steps, inside).items()
    }
    readers: dict[str, int] = {}
    for step in steps:
        for name in dict.fromkeys(step.inputs):
            readers[name] = readers.get(name, 0) + 1
    root = {name: name for name in found}
    for step in steps:
        made = step.outputs[0]
        if step.kind not in IN_PLACE or made not in found or readers.get(made) != 1:
            continue
        for name in step.inputs:
            if name in found and readers[name] == 1 and found[name].size == found[made].size:
                root[made] = root[name]
                found[root[name]] = replace(found[root[name]], last=found[made].last)
                break
    offsets = place({name: life for name, life in found.items() if root[name] == name})
    return max((end for _, end in offsets.values()), default=0)


def pointers(graph: Graph, step: Step) -> int:
    """Bytes of the pointers to every input pixel of every output pixel, that it keeps from one image to the next."""
    if step.kind == "RESIZE_BILINEAR":  # four pixels and two weights for each
        return (4 * POINTER + 2 * graph.values[step.outputs[0]].itemsize) * pixels(graph, step.outputs[0])
    if step.kind not in CONVOLUTIONS:
        return 0
    (_, high, wide, _), out = graph.values[step.inputs[1]].shape, graph.values[step.outputs[0]].shape
    if step.kind == "DEPTHWISE_CONV_2D":  # the windows of a row overlap
        return POINTER * out[1] * (high * wide + (out[2] - 1) * high)
    return 0 if high == wide == 1 else POINTER * high * wide * out[1] * out[2]


def packed_weights(graph: Graph, step: Step) -> int:
    """Bytes of its weights in the order in which the kernels read them; float16 ones have become float32."""
    if step.kind not in CONVOLUTIONS | {"FULLY_CONNECTED"}:
        return 0
    weights = graph.values[step.inputs[1]]
    outputs = rounded(weights.shape[0], BLOCK_OF_OUTPUTS)
    inputs = weights.shape[-1] if weights.itemsize == 4 else rounded(weights.shape[-1], BLOCK_OF_INPUTS)
    window = weights.elements // (weights.shape[0] * weights.shape[-1])
    return outputs * (inputs * window * weights.itemsize + 2 * 4)  # and a bias and a scale


def _rewritten(graph: Graph, steps: Sequence[Step]) -> tuple[list[Step], dict[str, Value]]:
    """Steps and values as XNNPACK runs them: a clamp joins the only step before it, and what enters a convolution of int8
    weights and float32 values is quantized first."""
    readers: dict[str, list[Step]] = {}
    for step in graph.steps:
        for name in dict.fromkeys(step.inputs):
            readers.setdefault(name, []).append(step)
    values, done, maker = dict(graph.values), [], {}
    for step in steps:
        given = step.inputs[0]
        before = maker.get(given)
        if step.kind in CLAMPS and before is not None and done[before].kind in CLAMPED and len(readers[given]) == 1:
            done[before] = replace(done[before], outputs=step.outputs)
            maker[step.outputs[0]] = before
            continue
        weights = graph.values[step.inputs[1]] if step.kind == "CONV_2D" else None
        if weights is not None and weights.dtype == "int8" and graph.values[given].dtype == "float32":
            integers = f"{given} quantized for {step.outputs[0]}"
            values[integers] = replace(graph.values[given], dtype="int8", itemsize=1)
            done.append(Step("CONVERT", (given,), (integers,)))
            step = replace(step, inputs=(integers, *step.inputs[1:]))
        maker.update(dict.fromkeys(step.outputs, len(done)))
        done.append(step)
    return done, values
