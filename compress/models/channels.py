"""Which channels of a network live and die together, as each convolutional architecture declares them.

Residual sums tie the outputs of all their terms: cutting channel 5 of one means cutting channel 5 of all. Before a
PixelShuffle by r, one channel is r*r consecutive outputs of the convolution.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Producer:
    """A layer whose outputs are the group's channels.

    Attributes:
        layer: name of a convolution; channel c is its outputs c * copies to (c + 1) * copies - 1. A depthwise
            convolution and one whose outputs only scale the channels (a gate) are producers too: their rows go along.
        copies: r*r before a PixelShuffle, else 1.
    """

    layer: str
    copies: int = 1


@dataclass(frozen=True)
class Consumer:
    """A layer whose inputs are the group's channels.

    Attributes:
        layer: name of a convolution.
        offset: the input at which the group's channels start, for inputs that are concatenations.
    """

    layer: str
    offset: int = 0


@dataclass(frozen=True, kw_only=True)
class ChannelGroup:
    """Channels that can only be removed together.

    Attributes:
        option: field of the architecture's config that counts them; groups of one option are cut to one width.
        size: how many there are.
        producers, consumers: the layers that write and read them, by their names in the merged network.
        norms: batch norms over them.
    """

    option: str
    size: int
    producers: tuple[Producer, ...]
    consumers: tuple[Consumer, ...]
    norms: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The first producer's, which no other group shares."""
        return self.producers[0].layer

    @classmethod
    def of(
        cls,
        option: str,
        size: int,
        producers: Iterable[str | Producer],
        consumers: Iterable[str | Consumer],
        norms: Iterable[str] = (),
    ) -> "ChannelGroup":
        """The same from names alone, where there are no copies and no offset."""
        return cls(
            option=option,
            size=size,
            producers=tuple(Producer(item) if isinstance(item, str) else item for item in producers),
            consumers=tuple(Consumer(item) if isinstance(item, str) else item for item in consumers),
            norms=tuple(norms),
        )
