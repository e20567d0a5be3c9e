"""How large a result is to be, and what that is called in its name. Needs no torch."""

import math
from dataclasses import dataclass

from compress.errors import BadInput

LONGEST = 1_000_000  # pixels on a side: beyond any photograph


@dataclass(frozen=True)
class Target:
    """What the user asked for; nothing at all is the network's own scale.

    Attributes:
        scale: times the photograph's size, any number above 0; not together with the others.
        width, height: in pixels; one keeps the proportions, both are exact.

    Raises:
        BadInput: a scale beside a width or height, or anything not above 0.
    """

    scale: float | None = None
    width: int | None = None
    height: int | None = None

    def __post_init__(self) -> None:
        if self.scale is not None and (self.width is not None or self.height is not None):
            raise BadInput("expected --scale or a --width and --height, found both: leave one of them out.")
        if self.scale is not None and not (math.isfinite(self.scale) and self.scale > 0):
            raise BadInput(f"expected a scale above 0, found {self.scale:g}: give 2 or 1.5, say.")
        for name, pixels in (("width", self.width), ("height", self.height)):
            if pixels is not None and not 0 < pixels <= LONGEST:
                raise BadInput(f"expected a {name} of 1 to {LONGEST} pixels, found {pixels}: choose another.")

    def size(self, photograph: tuple[int, int], network: int) -> tuple[int, int]:
        """(height, width) of the result for a photograph of (height, width) and a network's scale; 1 or more each.

        Raises:
            BadInput: a side beyond LONGEST.
        """
        height, width = photograph
        if self.width and self.height:
            return self.height, self.width
        scale = self.scale or network
        if self.width:
            scale = self.width / width
        if self.height:
            scale = self.height / height
        if max(height, width) * scale > LONGEST:
            raise BadInput(
                f"expected a result of at most {LONGEST} pixels on a side, found {scale:g} times {width}x{height}: ask for less."
            )
        return self.height or max(round(height * scale), 1), self.width or max(round(width * scale), 1)

    def label(self, network: int) -> str:
        """For names of files and folders: x4, x1.5, 1920x1080, w1920 or h1080."""
        if self.width and self.height:
            return f"{self.width}x{self.height}"
        if self.width:
            return f"w{self.width}"
        if self.height:
            return f"h{self.height}"
        return f"x{self.scale or network:g}"
