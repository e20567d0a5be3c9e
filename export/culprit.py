"""Which step of a deploy graph a converter cannot take: found by converting beginnings of the graph."""

from collections.abc import Callable
from typing import TypeVar

from compress.deploy import DeployGraph
from compress.errors import BadInput
from export.chatter import StepFailed

Made = TypeVar("Made")


def converted(graph: DeployGraph, convert: Callable[[DeployGraph], Made]) -> Made:
    """`convert(graph)`; where that fails, the first step that it fails at is looked for.

    Args:
        graph: to convert.
        convert: is called with beginnings of the graph, too, whose output is any of its values.

    Raises:
        StepFailed: `convert` raised anything but BadInput.
    """
    try:
        return convert(graph)
    except BadInput:
        raise
    except Exception as error:
        said = (str(error).splitlines() or [""])[0][:200]
        raise StepFailed(
            f"a failure at the step {_first_failing(graph, convert)!r} ({type(error).__name__}: {said})"
        ) from error


def _first_failing(graph: DeployGraph, convert: Callable[[DeployGraph], object]) -> str:
    """By halving: the step whose beginning fails while the one before does not."""
    names = list(graph.inputs)
    works, fails = 0, len(names)
    while fails - works > 1:
        middle = (works + fails) // 2
        try:
            convert(beginning(graph, middle))
            works = middle
        except Exception:  # of any kind: converters have no base class of their own
            fails = middle
    return names[fails - 1]


def beginning(graph: DeployGraph, steps: int) -> DeployGraph:
    """The first steps of a graph, with its operators."""
    start = DeployGraph(graph.scale)
    for name, operator, inputs in list(graph.steps())[:steps]:
        start.add(name, operator, *inputs)
    return start
