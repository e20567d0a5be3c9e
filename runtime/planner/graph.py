"""A file as the planner sees it: steps in order of execution, and the values between them with their size in bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.planner.greedy import Life


@dataclass(frozen=True)
class Value:
    """What a step reads or makes.

    Attributes:
        dtype: of the elements, such as 'float32'.
        shape: for one image of the size that is planned.
        itemsize: bytes of an element.
        fixed: a constant of the file, or made of constants alone before the first inference.
    """

    dtype: str
    shape: tuple[int, ...]
    itemsize: int
    fixed: bool

    @property
    def elements(self) -> int:
        count = 1
        for side in self.shape:
            count *= side
        return count

    @property
    def size(self) -> int:
        """In bytes."""
        return self.elements * self.itemsize


@dataclass(frozen=True)
class Step:
    """One operator.

    Attributes:
        kind: the format's name of it.
        inputs, outputs: names of values; inputs that are left out are not listed.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """A network for one image of a given size.

    Attributes:
        steps: without those that only make constants.
        values: by name.
        image, result: names of what goes in and what comes out.
    """

    steps: tuple[Step, ...]
    values: dict[str, Value]
    image: str
    result: str

    def computed(self, step: Step) -> list[str]:
        """Its inputs that are no constants, each once."""
        return [name for name in dict.fromkeys(step.inputs) if not self.values[name].fixed]


def lives(graph: Graph, steps: Sequence[Step], names: Sequence[str], size: int = 1) -> dict[str, Life]:
    """When each of `names` is made and last read, counted in `steps`; every size rounded up to a multiple of `size`."""
    made = {name: number for number, step in enumerate(steps) for name in step.outputs}
    read = {name: number for number, step in enumerate(steps) for name in step.inputs}
    return {
        name: Life(rounded(graph.values[name].size, size), made.get(name, 0), read.get(name, made.get(name, 0)))
        for name in names
    }


def rounded(count: int, multiple: int) -> int:
    """`count`, up to the next multiple."""
    return -(-count // multiple) * multiple


def pixels(graph: Graph, name: str) -> int:
    """Height times width of an image or of feature maps."""
    _, height, width, _ = graph.values[name].shape
    return height * width
