"""ONNX Runtime's arena: the best free chunk that fits, in regions that double (onnxruntime/core/framework/bfc_arena.cc)."""

from dataclasses import dataclass

CHUNK = 256  # sizes are multiples of this
FIRST_REGION, SECOND_REGION, LARGEST_STEP = 2**20, 2**21, 2**30
MAPPED = 2**23  # regions from this size on are mapped, each below the one before; smaller ones lie on the heap, upwards
LARGEST_WASTE = 128 * 2**20  # that is left unsplit behind a value


@dataclass
class Chunk:
    """Bytes from `start` on in a region; free, or held by a value."""

    region: int
    start: int
    size: int
    free: bool = True


class Arena:
    """Simulates allocations, and counts the bytes that were ever written: untouched pages of a region cost nothing."""

    def __init__(self) -> None:
        self._chunks: list[Chunk] = []  # by region and start
        self._written: list[int] = []  # end of what was written, by region
        self._mapped: list[bool] = []
        self._step = FIRST_REGION

    @property
    def written(self) -> int:
        """Bytes from the start of each region to the last byte that was written there."""
        return sum(self._written)

    def take(self, size: int) -> Chunk:
        """Makes room for a value, and writes it."""
        wanted = max(CHUNK, -(-size // CHUNK) * CHUNK)
        fitting = [chunk for chunk in self._chunks if chunk.free and chunk.size >= wanted]
        chosen = min(fitting, key=self._order) if fitting else self._grow(wanted)
        if chosen.size >= 2 * wanted or chosen.size - wanted >= LARGEST_WASTE:
            rest = Chunk(chosen.region, chosen.start + wanted, chosen.size - wanted)
            chosen.size = wanted
            self._chunks.insert(self._chunks.index(chosen) + 1, rest)
        chosen.free = False
        self._written[chosen.region] = max(self._written[chosen.region], chosen.start + size)
        return chosen

    def give(self, chunk: Chunk) -> None:
        """Frees it, and joins it with its free neighbours."""
        chunk.free = True
        at = next(number for number, one in enumerate(self._chunks) if one is chunk)
        for left in (at, at - 1):
            if left < 0 or left + 1 >= len(self._chunks):
                continue
            one, other = self._chunks[left], self._chunks[left + 1]
            if one.free and other.free and one.region == other.region:
                one.size += other.size
                del self._chunks[left + 1]

    def _order(self, chunk: Chunk) -> tuple[int, bool, int, int]:
        """By size, then by address."""
        mapped = self._mapped[chunk.region]
        return chunk.size, mapped, -chunk.region if mapped else chunk.region, chunk.start

    def _grow(self, wanted: int) -> Chunk:
        grown = False
        while wanted > self._step:
            self._step, grown = self._step * 2, True
        chunk = Chunk(len(self._written), 0, self._step)
        if not self._written and not grown:
            self._step = SECOND_REGION
        elif not grown:
            self._step = min(2 * self._step, LARGEST_STEP)
        self._chunks.append(chunk)
        self._written.append(0)
        self._mapped.append(chunk.size >= MAPPED)
        return chunk
