"""What an image of one size costs: multiply-accumulates, and the memory that the values between the operators take."""

from collections import Counter
from dataclasses import dataclass

from export.audit.contents import Contents, Operator

CONVOLUTIONS = frozenset({"CONV_2D", "Conv", "FusedConv", "ConvInteger", "QLinearConv", "conv"})
TRANSPOSED = frozenset({"ConvTranspose", "conv_transpose"})
PRODUCTS = frozenset(
    {"FULLY_CONNECTED", "BATCH_MATMUL", "Gemm", "MatMul", "MatMulInteger", "QLinearMatMul", "linear", "matmul"}
)
IN_PLACE = frozenset(
    {
        *(
            "ADD",
            "SUB",
            "MUL",
            "DIV",
            "RELU",
            "RELU6",
            "RELU_0_TO_1",
            "RELU_N1_TO_1",
            "LEAKY_RELU",
            "PRELU",
            "LOGISTIC",
        ),
        *("TANH", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "MINIMUM", "MAXIMUM", "ABS", "NEG", "EXP"),
        *("Add", "Sub", "Mul", "Div", "Relu", "LeakyRelu", "PRelu", "Sigmoid", "Tanh", "Clip", "Reshape", "Identity"),
        *("com.microsoft:QLinearAdd", "add", "sub", "mul", "relu", "leaky_relu", "prelu", "sigmoid", "tanh", "clip"),
        *("round", "reshape", "identity"),
    }
)
"""Operators that can write their result over their first input: value by value, or a new shape for the same bytes."""
ALIGNMENT = 64  # bytes, as TFLite's kDefaultTensorAlignment


def macs(contents: Contents) -> int | None:
    """Multiply-accumulates of all convolutions and matrix products; None where a shape that it takes is not known."""
    total = 0
    for operator in contents.operators:
        own = _macs(contents, operator)
        if own is None:
            return None
        total += own
    return total


def _macs(contents: Contents, operator: Operator) -> int | None:
    if operator.weight is None or operator.weight not in contents.tensors:
        return 0
    weight, made = contents.tensors[operator.weight], contents.tensors[operator.outputs[0]]
    given = contents.tensors[next(name for name in contents.computed_inputs(operator) or operator.inputs)]
    kind = operator.kind.rpartition(":")[2]
    if weight.elements is None or made.elements is None or weight.shape is None or not weight.shape:
        return None
    if kind in CONVOLUTIONS:
        return made.elements * (weight.elements // weight.shape[0])
    if kind == "DEPTHWISE_CONV_2D":
        return made.elements * (weight.elements // weight.shape[-1])
    if kind == "TRANSPOSE_CONV":
        return None if given.elements is None else given.elements * (weight.elements // weight.shape[-1])
    if kind in TRANSPOSED:
        return None if given.elements is None else given.elements * (weight.elements // weight.shape[0])
    if kind in PRODUCTS:
        return None if given.shape is None else made.elements * given.shape[-1]
    return 0


@dataclass
class _Block:
    """Memory for one value, or for several that follow each other in place; first and last operator that need it."""

    size: int
    first: int
    last: int


def arena_bytes(contents: Contents) -> int | None:
    """Bytes that the values between the operators take at once, for one image; None where a shape is not known.

    A value lives from the operator that makes it to the last one that reads it; images live all the time. An operator of
    `IN_PLACE` writes over its first input where that has as many bytes and no other reader. The largest value gets
    its place first, every other one the lowest offset at which it meets no value that lives at the same time (greedy by
    size: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020, which TFLite's arena
    follows). Constants, and what is unpacked from them, are not part of it; nor is what kernels take for themselves: LiteRT's
    built-in convolutions unfold their input into a scratch tensor k*k times as large, XNNPACK's do not.
    """
    blocks = _blocks(contents)
    if blocks is None:
        return None
    placed: list[tuple[int, _Block]] = []
    for block in sorted(blocks, key=lambda block: -block.size):
        offset = 0
        for start, other in sorted(placed, key=lambda pair: pair[0]):
            if other.last < block.first or block.last < other.first:
                continue
            if offset + block.size <= start:
                break
            offset = max(offset, start + other.size)
        placed.append((offset, block))
    return max((offset + block.size for offset, block in placed), default=0)


def _blocks(contents: Contents) -> list[_Block] | None:
    fixed, end = contents.fixed, len(contents.operators)
    readers = Counter(name for operator in contents.operators for name in set(operator.inputs))
    last = {name: end for name in (*contents.inputs, *contents.outputs)}
    for number, operator in enumerate(contents.operators):
        for name in operator.inputs:
            last[name] = max(last.get(name, 0), number)
    blocks: dict[str, _Block] = {}
    for name, number in [(name, -1) for name in contents.inputs] + [
        (name, number) for number, operator in enumerate(contents.operators) for name in operator.outputs
    ]:
        if name in fixed:
            continue
        tensor = contents.tensors.get(name)
        if tensor is None or tensor.bytes is None:
            return None
        size = -(-tensor.bytes // ALIGNMENT) * ALIGNMENT
        operator = contents.operators[number] if number >= 0 else None
        source = operator.inputs[0] if operator and operator.kind in IN_PLACE and operator.inputs else None
        block = blocks.get(source) if source else None
        if source and block and block.size == size and block.last == number and readers[source] == 1:
            block.last = last.get(name, number)
        else:
            block = _Block(size, number, last.get(name, number))
        blocks[name] = block
    return list({id(block): block for block in blocks.values()}.values())
