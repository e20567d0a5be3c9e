"""Files that take images of one size are judged on crops of that size, in the middle of every image."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from compress.data.benchmarks import Benchmark
from compress.errors import BadInput
from runtime.engines.base import Engine, Image

Size = tuple[int, int]


def common_size(engines: Sequence[Engine]) -> Size | None:
    """(height, width) of the LR images that all files take; None where all take any.

    Raises:
        BadInput: files without a size in common.
    """
    listed: list[tuple[Path, set[Size]]] = [
        (engine.path, {(height, width) for height, width in engine.metadata.sizes})
        for engine in engines
        if engine.metadata.sizes != "any"
    ]
    if not listed:
        return None
    common = set.intersection(*(sizes for _, sizes in listed))
    if not common:
        names = ", ".join(str(path) for path, _ in listed)
        raise BadInput(f"expected files with an image size in common, found none in {names}: check them one by one.")
    return max(common)


def crops(benchmark: Benchmark, size: Size | None) -> Iterator[tuple[str, Image, Image]]:
    """(name, lr, hr) of a set, cut to an LR image of that size; smaller images are left out, None leaves all whole.

    Raises:
        BadInput: a set without any image of that size.
    """
    if size is None:
        yield from benchmark
        return
    height, width = size
    found = 0
    for name, lr, hr in benchmark:
        top, left = (lr.shape[0] - height) // 2, (lr.shape[1] - width) // 2
        if top < 0 or left < 0:
            continue
        found += 1
        scale = benchmark.scale
        inside = hr[scale * top : scale * (top + height), scale * left : scale * (left + width)]
        yield name, lr[top : top + height, left : left + width], inside
    if not found:
        raise BadInput(
            f"expected images of at least {width}x{height} LR pixels, the size of the files, found none in "
            f"{benchmark.name}: name another set."
        )
