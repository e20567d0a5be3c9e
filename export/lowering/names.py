"""Which tensor of a .tflite holds the value of which step of the student.

The converter keeps neither names nor a one-to-one correspondence: a clip becomes three operators, an int8 one none, and
other programs may have rewritten the file. So the graph is matched by its structure. Needs a parsed file, no converter.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn

from compress.deploy import INPUT, Add, Clip, Conv, DeployGraph, DepthToSpace, PReLU, Repeat, Sigmoid
from export.audit.tflite import operator_name

CONVERSIONS = frozenset({"QUANTIZE", "DEQUANTIZE", "CAST"})
FORMS: dict[type[nn.Module], tuple[frozenset[str], frozenset[str]]] = {
    Conv: (frozenset({"CONV_2D"}), frozenset()),
    Add: (frozenset({"ADD"}), frozenset()),
    Sigmoid: (frozenset({"LOGISTIC"}), frozenset()),
    DepthToSpace: (frozenset({"DEPTH_TO_SPACE"}), frozenset()),
    Repeat: (frozenset({"CONCATENATION"}), frozenset({"CONCATENATION"})),
    PReLU: (frozenset({"PRELU", "LEAKY_RELU", "SUB", "ADD", "RELU", "MUL"}), frozenset({"MUL", "RELU"})),
    Clip: (
        frozenset({"SUB", "RELU", "RELU_0_TO_1", "MINIMUM", "MAXIMUM"}),
        frozenset({"SUB", "ADD", "RELU", "MINIMUM"}),
    ),
}
"""By step: operators that its value can come from, and those that can lie between its inputs and that one."""


def step_tensors(model: Any, graph: DeployGraph) -> dict[str, int]:
    """Index of the tensor of every step, by name, the input included; steps without one of their own are left out.

    A step's operator is one of its form from which a walk back, over operators that belong to no step yet, ends at the
    tensors of the step's inputs and nowhere else. Of several the first is taken, in the order of both graphs; where a
    step consists of several operators, the last, which has the others behind it.

    Args:
        model: a parsed .tflite (`export.metadata.tflite_model`).
        graph: the deploy graph that it was exported from.
    """
    subgraph = model.subgraphs[0]
    operators = [
        (operator_name(model, operator), [int(i) for i in operator.inputs if i >= 0], int(operator.outputs[0]))
        for operator in subgraph.operators
    ]
    made = {output: number for number, (_, _, output) in enumerate(operators)}
    found = {INPUT: int(subgraph.inputs[0])}
    for name, operator, inputs in graph.steps():
        if not set(inputs) <= set(found) or type(operator) not in FORMS:
            continue
        wanted = {found[one] for one in inputs}
        ends, between = FORMS[type(operator)]
        known = set(found.values())
        candidates = [
            output
            for kind, given, output in operators
            if kind in ends
            and output not in known
            and _sources(given, operators, made, known, between) == wanted
            and (kind not in ("ADD", "SUB") or not isinstance(operator, PReLU) or not set(given) & known)
        ]
        if candidates:
            found[name] = candidates[-1 if between else 0]
        elif isinstance(operator, Clip):
            found[name] = found[inputs[0]]  # an int8 value of scale 1/255 is clipped by itself
    return found


def _sources(
    inputs: Sequence[int],
    operators: Sequence[tuple[str, list[int], int]],
    made: dict[int, int],
    known: set[int],
    between: frozenset[str],
) -> set[int] | None:
    """Known tensors at which a walk back from `inputs` ends; None where it meets an operator that is not `between`."""
    waiting, seen, sources = list(inputs), set(inputs), set()
    while waiting:
        tensor = waiting.pop()
        if tensor in known:
            sources.add(tensor)
            continue
        if tensor not in made:
            continue  # a constant
        kind, given, _ = operators[made[tensor]]
        if kind not in between | CONVERSIONS:
            return None
        waiting += [one for one in given if one not in seen]
        seen.update(given)
    return sources
