"""Questions to a graph: which operators compute on floats, where they lie, and how a delegate would cut it."""

from collections.abc import Callable, Sequence

from export.audit.contents import FLOATS, SMALL_INTEGERS, Contents, Operator, Tensor

CONVERSIONS = frozenset(
    {"QUANTIZE", "DEQUANTIZE", "CAST", "QuantizeLinear", "DequantizeLinear", "Cast", "quantize", "dequantize", "cast"}
)


def is_float(contents: Contents, operator: Operator) -> bool:
    """Whether it reads or writes real numbers. Constant scales of an integer operator are not counted."""
    names = {*operator.outputs, *contents.computed_inputs(operator)}
    return any(tensor.dtype in FLOATS for tensor in contents.of(sorted(names)))


def is_integer(contents: Contents, operator: Operator) -> bool:
    """Whether it computes small integers from small integers."""
    given, made = contents.of(contents.computed_inputs(operator)), contents.of(operator.outputs)
    return bool(given and made) and all(tensor.dtype in SMALL_INTEGERS for tensor in (*given, *made))


def is_quantized(contents: Contents) -> bool:
    """Whether any operator that computes, not only converts, works on small integers."""
    return any(o.kind not in CONVERSIONS and is_integer(contents, o) for o in contents.operators)


def islands(contents: Contents) -> list[list[Operator]]:
    """Connected float operators between integers, each island in order of execution.

    A group that only makes integers of a float image, or a float image of integers, is none.
    """
    fixed = contents.fixed
    floats = [o for o in contents.operators if is_float(contents, o) and not set(o.outputs) <= fixed]
    group = {operator.name: number for number, operator in enumerate(floats)}
    for operator in floats:
        for name in operator.inputs:
            before = contents.producers.get(name)
            if before is not None and before.name in group:
                old, new = group[operator.name], group[before.name]
                group = {key: new if value == old else value for key, value in group.items()}
    found = []
    for number in sorted(set(group.values())):
        members = [operator for operator in floats if group[operator.name] == number]
        given = contents.of([name for operator in members for name in contents.computed_inputs(operator)])
        made = contents.of([name for operator in members for name in operator.outputs])
        if _any_integers(given) and _any_integers(made):
            found.append(members)
    return found


def _any_integers(tensors: Sequence[Tensor]) -> bool:
    return any(tensor.dtype in SMALL_INTEGERS for tensor in tensors)


def ends(contents: Contents) -> set[str]:
    """Names of the operators without weights that lie before the first integers or after the last ones: what turns
    pictures into integers and back."""
    after_integers: set[str] = set()
    before_integers: set[str] = set()
    for operator in contents.operators:
        if is_integer(contents, operator) or set(operator.inputs) & after_integers:
            after_integers.update(operator.outputs)
    for operator in reversed(contents.operators):
        if is_integer(contents, operator) or set(operator.outputs) & before_integers:
            before_integers.update(operator.inputs)
    return {
        o.name
        for o in contents.operators
        if o.weight is None and (not set(o.outputs) & after_integers or not set(o.inputs) & before_integers)
    }


def partitions(contents: Contents, taken: Callable[[Operator], bool]) -> tuple[int, list[Operator]]:
    """(pieces that a delegate runs, operators left outside).

    TFLite's way (PartitionGraphIntoNodeSubsets): all operators of one side that are ready run, then all of the other
    side, until none is left.
    """
    known = {*contents.inputs, *contents.fixed}
    waiting = [operator for operator in contents.operators if not set(operator.outputs) <= known]
    made = {name for operator in waiting for name in operator.outputs}
    side, pieces, idle = True, 0, 0
    while waiting and idle < 2:
        before = len(waiting)
        for operator in list(waiting):
            if taken(operator) == side and all(name in known or name not in made for name in operator.inputs):
                known.update(operator.outputs)
                waiting.remove(operator)
        moved = len(waiting) < before
        pieces, idle, side = pieces + (moved and side), 0 if moved else idle + 1, not side
    return pieces, [o for o in contents.operators if not set(o.outputs) <= contents.fixed and not taken(o)]


def labels(operators: Sequence[Operator]) -> list[str]:
    """As "KIND:layer", without the domain of ONNX Runtime's own kinds."""
    return [f"{operator.kind.rpartition(':')[2]}:{operator.name}" for operator in operators]


def kind_of(label: str) -> str:
    """KIND of such a label."""
    return label.partition(":")[0]


def layer_of(label: str) -> str:
    """Layer of such a label."""
    return label.partition(":")[2]
