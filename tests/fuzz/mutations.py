"""Damage: truncated, bit-flipped, overwritten, shuffled and spliced bytes; always the same for the same generator."""

import random
from collections.abc import Callable

EXTREMES = (0, 1, -1, 2**7 - 1, 2**15 - 1, 2**31 - 1, 2**63 - 1, -(2**7), -(2**15), -(2**31), -(2**63))
LITTLE_MOST = 8  # bytes of an overwritten number
FLIPS_MOST = 16
HEAD_SHARE = 0.5  # of the damage goes to the first bytes, where headers are
HEAD = 256
WORDS = (
    "-1", "0", "1e999", "nan", "null", "true", "''", "[]", "{}", "99999999999999999999", "1" * 400, "a" * 5000, "\x00",
    "!!python/object/apply:os.system [x]", "&a [*a]", "[" * 2000, "{" * 2000, '"', ":", "\t", "\ufeff", "../../etc/passwd",
)  # fmt: skip

Mutation = Callable[[bytes, random.Random], bytes]


def truncated(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def flipped(data: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(chance.randint(1, FLIPS_MOST)):
        damaged[_place(data, chance)] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def overwritten(data: bytes, chance: random.Random) -> bytes:
    size = chance.choice((1, 2, 4, 8))
    value = chance.choice(EXTREMES) if chance.random() < 0.7 else chance.getrandbits(63)
    at = _place(data, chance)
    return (data[:at] + (value & (256**size - 1)).to_bytes(size, "little") + data[at + size :])[: len(data)]


def zeroed(data: bytes, chance: random.Random) -> bytes:
    start, end = _block(data, chance)
    return data[:start] + bytes(end - start) + data[end:]


def removed(data: bytes, chance: random.Random) -> bytes:
    start, end = _block(data, chance)
    return data[:start] + data[end:]


def repeated(data: bytes, chance: random.Random) -> bytes:
    start, end = _block(data, chance)
    return data[:end] + data[start:]


def swapped(data: bytes, chance: random.Random) -> bytes:
    middle, end = sorted((chance.randrange(len(data)), chance.randrange(len(data))))
    return data[middle:end] + data[:middle] + data[end:]


def spliced(data: bytes, chance: random.Random) -> bytes:
    """The beginning and, from elsewhere, the end of the same file."""
    return data[: chance.randrange(len(data))] + data[chance.randrange(len(data)) :]


def noise(data: bytes, chance: random.Random) -> bytes:
    keep = chance.choice((0, 4, 8, 16, 64))
    return data[:keep] + chance.randbytes(chance.randrange(4096))


def reworded(data: bytes, chance: random.Random) -> bytes:
    """One word of a text replaced by one that breaks parsers and checks."""
    words = data.decode("utf-8", "replace").split(" ")
    words[chance.randrange(len(words))] = chance.choice(WORDS)
    return " ".join(words).encode()


BYTES: tuple[Mutation, ...] = (
    truncated, flipped, flipped, overwritten, overwritten, zeroed, removed, repeated, swapped, spliced, noise,
)  # fmt: skip
TEXT: tuple[Mutation, ...] = (*BYTES, reworded, reworded, reworded, reworded, reworded)


def damaged(data: bytes, chance: random.Random, kinds: tuple[Mutation, ...] = BYTES) -> bytes:
    """`data` after one to three mutations."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        if not data:
            break
        data = chance.choice(kinds)(data, chance)
    return data


def _place(data: bytes, chance: random.Random) -> int:
    most = min(HEAD, len(data)) if chance.random() < HEAD_SHARE else len(data)
    return chance.randrange(most)


def _block(data: bytes, chance: random.Random) -> tuple[int, int]:
    start = chance.randrange(len(data))
    return start, min(len(data), start + chance.choice((1, 4, 16, 256, 4096)))
