"""What a report shows, as plain data: nothing here opens a file or knows HTML."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from runtime.engines.base import Image
from runtime.parity.results import ParityReport

Kind = Literal["bicubic", "student", "file", "teacher", "truth"]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One version of a photograph's crop.

    Attributes:
        name: such as 'bicubic' or a file's name.
        kind: what made it.
        image: (H, W, 3) uint8 RGB; all pictures of a scene have one size.
        psnr: dB on Y of the whole photograph against the ground truth, or None where there is none to compare with.
        reference: of a file: what the PyTorch reference of its precision gives, same shape.
        integer: of a file: whether it computes with integers.
    """

    name: str
    kind: Kind
    image: Image
    psnr: float | None = None
    reference: Image | None = None
    integer: bool = False

    @property
    def caption(self) -> str:
        if self.psnr is None:
            return self.name
        return f"{self.name}, {'identical' if math.isinf(self.psnr) else f'{self.psnr:.2f} dB'}"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A crop of one photograph in all its versions.

    Attributes:
        name: of the photograph.
        source: the benchmark set that it is of, or what else.
        pictures: from the plainest (bicubic) to the ground truth, where there is one.
    """

    name: str
    source: str
    pictures: tuple[Picture, ...]

    @property
    def truth(self) -> Image | None:
        """The ground truth's picture."""
        return next((picture.image for picture in self.pictures if picture.kind == "truth"), None)

    @property
    def files(self) -> tuple[Picture, ...]:
        """The pictures that exported files made."""
        return tuple(picture for picture in self.pictures if picture.kind == "file")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a plot of training.

    Attributes:
        name: for the legend.
        axis: 'loss' (logarithmic) or 'psnr' (dB).
        steps, values: of equal length.
    """

    name: str
    axis: str
    steps: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One file in the plots of quality.

    Attributes:
        name: its label.
        group: 'here' (of this page), 'zoo' or 'peer'.
        integer: whether it computes with integers.
        file_bytes: size.
        milliseconds: of one inference, or None where it was not run.
        psnr: dB.
    """

    name: str
    group: Literal["here", "zoo", "peer"]
    integer: bool
    file_bytes: int
    milliseconds: float | None
    psnr: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The page's files among the zoo's and the published ones.

    Attributes:
        set_name: the benchmark set of the PSNR.
        points: in no order.
        bicubic: dB of bicubic on that set.
        lr_size: (height, width) of the LR image that was timed.
        threads: of the engines.
        note: where the latencies come from, in words.
    """

    set_name: str
    points: tuple[Point, ...]
    bicubic: float
    lr_size: tuple[int, int]
    threads: int
    note: str


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """All of a report.

    Attributes:
        title: of the page.
        summary: what was done, in a sentence or two.
        parity: of the exported files; its verdicts head the page.
        scenes: one or more.
        comparison: None leaves the plots of quality out.
        curves: of the training; none leaves the plots out.
        provenance: names and values: hashes, recipe, versions.
        protocol: how the figures were made, one sentence each.
    """

    title: str
    summary: str
    parity: ParityReport
    scenes: tuple[Scene, ...]
    comparison: Comparison | None = None
    curves: Sequence[Curve] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    protocol: Sequence[str] = ()


def difference(a: Image, b: Image) -> NDArray[np.int16]:
    """Largest absolute difference over the channels, per pixel, in steps of 1/255: (H, W)."""
    return np.abs(a.astype(np.int16) - b.astype(np.int16)).max(axis=2)
