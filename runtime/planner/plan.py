"""A prediction, and the terms that it is the sum of."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from compress.errors import BadInput
from export.metadata import Metadata


class NoPrediction(BadInput):
    """A kind of file whose memory can only be measured."""


@dataclass(frozen=True)
class Plan:
    """What one inference adds to the peak resident memory of a process.

    Attributes:
        engine: that the prediction is for.
        terms: bytes by name; see docs/memory.md for what each is.
    """

    engine: str
    terms: Mapping[str, int]

    @property
    def total(self) -> int:
        """In bytes."""
        return sum(self.terms.values())


def check_size(metadata: Metadata, height: int, width: int, path: Path) -> None:
    """Raises BadInput for an LR image that the file does not take."""
    if height < 1 or width < 1:
        raise BadInput(f"expected a size of at least 1x1 pixel, found {width}x{height}: use a larger one.")
    if metadata.sizes != "any" and [height, width] not in [list(size) for size in metadata.sizes]:
        known = ", ".join(f"{wide}x{high}" for high, wide in metadata.sizes)
        raise BadInput(f"expected an image of {known} pixels, found {width}x{height}: {path} takes no other size.")
    if metadata.sizes == "any" and metadata.largest and max(height, width) > metadata.largest:
        raise BadInput(
            f"expected an image of at most {metadata.largest}x{metadata.largest} pixels, found {width}x{height}: {path} "
            "takes no larger one."
        )
