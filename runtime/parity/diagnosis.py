"""What is wrong with a picture that is not the reference's, where it is one of the usual mistakes."""

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]
EXPLAINED = 0.1  # of the squared error may be left by an explanation
COLOURS = ("red", "green", "blue")
FLAT = 1e-6  # variance of a reference that has nothing to compare


def diagnose(found: Real, expected: Real, scale: int) -> str | None:
    """Names the mistake that explains most of the difference, as a clause; None where none of these does.

    Args:
        found, expected: (s*H, s*W, 3) in [0, 1].
        scale: s.

    Tried: values that are not finite, colours in another order, another value range or brightness, a shift by up to one LR
    pixel, and sub-pixels in another order. An explanation counts where it leaves a tenth of the squared error at most.
    """
    if not np.isfinite(found).all():
        return f"{np.count_nonzero(~np.isfinite(found))} values are not finite: a weight or an image range is broken"
    error = _error(found, expected)
    if error == 0 or expected.var() < FLAT:
        return None
    left, words = min(_explanations(found, expected, scale), key=lambda one: one[0])
    return words if left <= EXPLAINED * error else None


def _explanations(found: Real, expected: Real, scale: int) -> Iterator[tuple[float, str]]:
    """(squared error left, what it is)."""
    for order in itertools.permutations(range(3)):
        if order != (0, 1, 2):
            names = ", ".join(COLOURS[i] for i in order)
            text = f"the colours come as {names}: swap them back where the file is converted"
            yield _error(found, expected[..., order]), text
    gain, offset = np.polyfit(expected.ravel(), found.ravel(), 1)
    text = (
        f"all values are {gain:.3g} times the reference's plus {255 * offset:.3g} LSB: look for a wrong value range, scale "
        "or zero point"
    )
    yield _error(found, gain * expected + offset), text
    for down, right in itertools.product(range(-scale, scale + 1), repeat=2):
        if (down, right) != (0, 0):
            text = (
                f"the picture is shifted by {right / scale:g} LR pixels to the right and {down / scale:g} down: look for "
                "another alignment of corners, or padding on one side"
            )
            yield _shifted(found, expected, down, right), text
    left, order = _reordered(found, expected, scale)
    if order is not None:
        text = (
            f"the sub-pixels come in another order ({', '.join(map(str, order))}): the channels before DEPTH_TO_SPACE are "
            "permuted"
        )
        yield left, text


def _error(found: Real, expected: Real) -> float:
    return float(np.mean((found - expected) ** 2)) if found.shape == expected.shape else np.inf


def _shifted(found: Real, expected: Real, down: int, right: int) -> float:
    """Error where found[y, x] is held against expected[y - down, x - right]."""
    height, width = found.shape[:2]
    if abs(down) >= height or abs(right) >= width:
        return np.inf
    rows, columns = (slice(max(by, 0), n + min(by, 0)) for by, n in ((down, height), (right, width)))
    back_rows, back_columns = (slice(max(-by, 0), n + min(-by, 0)) for by, n in ((down, height), (right, width)))
    return _error(found[rows, columns], expected[back_rows, back_columns])


def _reordered(found: Real, expected: Real, scale: int) -> tuple[float, list[int] | None]:
    """Every sub-pixel of `found` as the one of `expected` that it is nearest to; None unless that is another order."""
    height, width = (side // scale for side in found.shape[:2])

    def phases(image: Real) -> Real:
        parts = image.reshape(height, scale, width, scale, 3)
        return parts.transpose(1, 3, 0, 2, 4).reshape(scale**2, -1)

    errors = np.array([[_error(mine, theirs) for theirs in phases(expected)] for mine in phases(found)])
    order = [int(i) for i in errors.argmin(axis=1)]
    another = sorted(order) == list(range(scale**2)) and order != list(range(scale**2))
    return float(errors.min(axis=1).mean()), order if another else None
