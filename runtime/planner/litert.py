"""What LiteRT with XNNPACK adds to the memory of a process for one image, counted value by value as its planners place them.

The rules are those of LiteRT's tflite/arena_planner.cc and tflite/kernels/conv.cc, as of 2025; for XNNPACK's part see
`runtime.planner.xnnpack`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runtime.planner import xnnpack
from runtime.planner.graph import Graph, Step, lives, pixels, rounded
from runtime.planner.greedy import Life, place, touched
from runtime.planner.plan import Plan, check_size
from runtime.planner.tflite import TfliteNetwork, whole

ALIGNMENT = 64  # of values in the arena
PROGRAM = {"float32": 4_400_000, "int8": 3_700_000, "uint8": 3_700_000}
"""Bytes of LiteRT's code that runs and of its own objects, by the type of the images."""
RESERVE, RESERVE_OF_KERNELS = 0.05, 0.12  # where all is XNNPACK's, and where some is LiteRT's


class LitertPlanner:
    """Predicts for one file. Raises BadInput; see `TfliteNetwork`.

    Attributes:
        metadata: of the file.
        reserve: fraction of a budget to be left for the error of the prediction.
    """

    def __init__(self, path: Path, threads: int):
        self._path, self._network, self._threads = path, TfliteNetwork(path), threads
        self.metadata = self._network.metadata
        with whole(path):
            own = self._network.graph(*self._network.own)
            self._first = _workspace(own)
            self.reserve = RESERVE if all(delegated for delegated, _ in partitions(own)) else RESERVE_OF_KERNELS

    def __call__(self, height: int, width: int) -> Plan:
        """For an LR image of that size. Raises BadInput for one that the file does not take."""
        check_size(self.metadata, height, width, self._path)
        with whole(self._path):
            return Plan("litert", self._terms(self._network.graph(height, width)))

    def _terms(self, graph: Graph) -> dict[str, int]:
        delegated = [step for mine, steps in partitions(graph) if mine for step in steps]
        workspace = max(self._first, _workspace(graph))
        image, result = graph.values[graph.image], graph.values[graph.result]
        reading = result.size + result.elements  # a copy of the result, and uint8 pixels
        moments = timeline(graph)
        peaks = [{"arena": one.arena, "matrices": one.matrices, "reading": 0} for one in moments]
        peaks.append({"arena": moments[-1].arena, "matrices": moments[-1].kept, "reading": reading})
        if self._first < workspace:  # the block for the file's own size is given back after the new one was made
            peaks.append({"arena": image.size, "matrices": 0, "reading": self._first})
        highest = max(peaks, key=lambda peak: sum(peak.values()))
        return {
            "program": PROGRAM[image.dtype],
            "file": _constants(graph),
            "weights": sum(xnnpack.packed_weights(graph, step) for step in delegated),
            "pointers": sum(xnnpack.pointers(graph, step) for step in delegated),
            "workspace": workspace,
            **highest,
        }


def partitions(graph: Graph) -> list[tuple[bool, list[Step]]]:
    """The graph as LiteRT cuts it: (whether XNNPACK runs it, steps), in order.

    All steps of one side that are ready run, then all of the other side, until none is left
    (PartitionGraphIntoNodeSubsets).
    """
    known = {name for name, value in graph.values.items() if value.fixed} | {graph.image}
    waiting = [step for step in graph.steps if not known.issuperset(step.outputs)]
    pieces: list[tuple[bool, list[Step]]] = []
    side = xnnpack.takes(graph, waiting[0]) if waiting else True
    while waiting:
        piece = []
        for step in list(waiting):
            if xnnpack.takes(graph, step) == side and known.issuperset(step.inputs):
                piece.append(step)
                known.update(step.outputs)
                waiting.remove(step)
        if not piece and not any(known.issuperset(step.inputs) for step in waiting):
            raise ValueError("steps that wait for each other")
        if piece:
            pieces.append((side, piece))
        side = not side
    return pieces


@dataclass(frozen=True)
class Moment:
    """What LiteRT's own part holds during a step: bytes written in the arena, matrices of ruy, and those that stay."""

    arena: int
    matrices: int
    kept: int


@dataclass(frozen=True)
class Buffer:
    """ruy's: what does not fit gets a block of its own, and then a buffer of both sizes takes the place of the old one."""

    size: int = 0
    written: int = 0

    def after(self, wanted: int) -> tuple["Buffer", int]:
        """The buffer after a multiplication, and the bytes written during it."""
        if wanted <= self.size:
            used = max(self.written, wanted)
            return Buffer(self.size, used), used
        return Buffer(self.size + wanted), self.written + wanted


def timeline(graph: Graph) -> list[Moment]:
    """Of every step of LiteRT's plan, a partition of XNNPACK being one step.

    The arena holds the image, the result, what lies between partitions, and what LiteRT's own kernels compute, with the
    im2col copies that their convolutions make of their input. It is counted as it is written. ruy, which multiplies
    for them, reorders that copy once more, with a sum for every pixel.
    """
    pieces = partitions(graph)
    steps = [part for delegated, piece in pieces for part in ([_joined(graph, piece)] if delegated else piece)]
    found = lives(graph, steps, [graph.image, *(name for step in steps for name in step.outputs)], ALIGNMENT)
    found[graph.image] = replace(found[graph.image], first=0, last=len(steps))
    found[graph.result] = replace(found[graph.result], last=len(steps))
    im2col = {f"im2col {number}": _im2col(graph, step) for number, step in enumerate(steps)}
    for number, (name, size) in enumerate(im2col.items()):
        found |= {name: Life(rounded(size, ALIGNMENT), number, number)} if size else {}
    offsets, written, held, moments = place(found), [], Buffer(), []
    written.append(offsets[graph.image])
    for step, (name, size) in zip(steps, im2col.items(), strict=True):
        written += [offsets[made] for made in step.outputs]
        multiplied = _multiplied(graph, step)
        if size and multiplied:
            written.append(offsets[name])
        held, now = held.after(multiplied)
        moments.append(Moment(touched(written), now, held.written))
    return moments


def _workspace(graph: Graph) -> int:
    """Bytes of the block that all of XNNPACK's partitions share; it is filled with zeros, so all of it counts."""
    pieces = [steps for delegated, steps in partitions(graph) if delegated]
    return max((xnnpack.workspace(graph, steps, _joined(graph, steps).outputs) for steps in pieces), default=0)


def _constants(graph: Graph) -> int:
    """Bytes of the file's constants, which stay mapped after they were read."""
    made = {name for step in graph.steps for name in step.outputs}
    return sum(value.size for name, value in graph.values.items() if value.fixed and name not in made)


def _joined(graph: Graph, steps: Sequence[Step]) -> Step:
    """A partition as one step, from what it takes from outside to what is read outside."""
    made = {name for step in steps for name in step.outputs}
    inside = set(map(id, steps))
    read = {name for step in graph.steps if id(step) not in inside for name in step.inputs} | {graph.result}
    given = dict.fromkeys(name for step in steps for name in graph.computed(step) if name not in made)
    return Step("PARTITION", tuple(given), tuple(name for step in steps for name in step.outputs if name in read))


def _im2col(graph: Graph, step: Step) -> int:
    """Bytes of the copy that is planned for a convolution of LiteRT's own; its reference kernel does not write it."""
    if step.kind != "CONV_2D" or graph.values[step.inputs[1]].shape[1:3] == (1, 1):
        return 0
    return _columns(graph, step)


def _multiplied(graph: Graph, step: Step) -> int:
    """Bytes that ruy needs for a convolution of LiteRT's own; biases of 64 bits go to the reference kernel."""
    if step.kind != "CONV_2D" or graph.values[step.inputs[2]].dtype == "int64":
        return 0
    return _columns(graph, step) + 4 * pixels(graph, step.outputs[0])


def _columns(graph: Graph, step: Step) -> int:
    """Bytes of all inputs of every output pixel."""
    _, high, wide, depth = graph.values[step.inputs[1]].shape
    return pixels(graph, step.outputs[0]) * high * wide * depth * graph.values[step.inputs[0]].itemsize
