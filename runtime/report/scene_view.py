"""One photograph on the page: the slider's pictures, the strips, the heat maps."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.logbook import most_detailed
from runtime.engines.base import Image
from runtime.report.data import Picture, Scene, difference
from runtime.report.encoding import heat_map, png

CROP = 96
LEAST_ENLARGED = 2  # of the slider's pictures, where the screen has room
ROOM = (320, 480)  # height and width to which smaller pictures are enlarged
REFERENCE_TOP = 4  # LSB of the brightest colour against the reference and the float student
TRUTH_TOP = 64  # and against the ground truth


def merged(pictures: Sequence[Picture]) -> list[Picture]:
    """Pictures that are the same in every pixel become one, with all their names."""
    kept: list[Picture] = []
    for picture in pictures:
        twin = next((i for i, one in enumerate(kept) if np.array_equal(one.image, picture.image)), None)
        if twin is None:
            kept.append(picture)
        else:
            kept[twin] = dataclasses.replace(kept[twin], name=f"{kept[twin].name} = {picture.name}")
    return kept


def scene_view(number: int, scene: Scene, shown: Sequence[Picture], uris: Sequence[str]) -> dict[str, Any]:
    """Names and values for the template.

    Args:
        number: of the scene on the page.
        scene: of the report.
        shown: its pictures, merged.
        uris: of those.
    """
    height, width = shown[0].image.shape[:2]
    return {
        "number": number,
        "name": scene.name,
        "source": scene.source,
        "width": width,
        "height": height,
        "enlarged": max(LEAST_ENLARGED, min(ROOM[0] // height, ROOM[1] // width)),
        "pictures": [{"caption": one.caption, "uri": uri} for one, uri in zip(shown, uris, strict=True)],
        "right": _opposite(shown),
        "strips": list(_strips(scene, shown)),
        "heats": [heat for heat in _heats(scene, shown) if heat["maps"]],
    }


def _opposite(shown: Sequence[Picture]) -> int:
    """Which picture is at the right of the slider: the last int8 file, else the last file, else the last of all."""
    integer = [i for i, one in enumerate(shown) if one.integer]
    files = [i for i, one in enumerate(shown) if one.kind in ("file", "student")]
    return (integer or files or [len(shown) - 1])[-1]


def _strips(scene: Scene, shown: Sequence[Picture]) -> Iterator[dict[str, Any]]:
    """Crops of all pictures at one place each: where there is most detail, and where int8 differs most from float."""
    first = shown[0].image
    side = min(CROP, *first.shape[:2])
    places = [("Where the bicubic picture has most detail", *most_detailed(first, side))]
    floating = next((one.image for one in scene.pictures if one.kind == "student"), None)
    integer = next((one.image for one in scene.files if one.integer), None)
    if floating is not None and integer is not None:
        values = difference(floating, integer)
        row, column = np.unravel_index(int(values.argmax()), values.shape)
        title = f"Where int8 differs most from float ({values.max()} LSB)"
        places.append((title, _inside(int(row), side, first.shape[0]), _inside(int(column), side, first.shape[1])))
    for title, top, left in places:
        crops = [(one.name, png(one.image[top : top + side, left : left + side])) for one in shown]
        yield {"title": title, "left": left, "top": top, "side": side, "crops": crops}


def _heats(scene: Scene, shown: Sequence[Picture]) -> Iterator[dict[str, Any]]:
    """Groups of heat maps: files against their references, integers against the float student, all against the truth."""
    files = [one for one in scene.files if one.reference is not None]
    yield {
        "title": "Files against the PyTorch reference of their precision",
        "top": REFERENCE_TOP,
        "maps": [_map(one.name, one.image, one.reference, REFERENCE_TOP) for one in files if one.reference is not None],
    }
    floating = next((one.image for one in scene.pictures if one.kind == "student"), None)
    if floating is not None:
        integer = [one for one in shown if one.integer]
        yield {
            "title": "What quantization changes: int8 against the float student",
            "top": REFERENCE_TOP,
            "maps": [_map(one.name, one.image, floating, REFERENCE_TOP) for one in integer],
        }
    truth = scene.truth
    if truth is not None:
        others = [one for one in shown if one.kind != "truth"]
        yield {
            "title": "What is missing: everything against the ground truth",
            "top": TRUTH_TOP,
            "maps": [_map(one.name, one.image, truth, TRUTH_TOP) for one in others],
        }


def _map(name: str, image: Image, wanted: Image, top: int) -> dict[str, Any]:
    """A heat map with its figures; no picture where nothing differs."""
    values: NDArray[np.int16] = difference(image, wanted)
    largest = int(values.max())
    if not largest:
        return {"name": name, "uri": None, "words": "identical in every pixel"}
    same = 100 * float(np.mean(values == 0))
    shares = f"{'>99.9' if same > 99.9 else f'{same:.1f}'}% identical, " if top == REFERENCE_TOP else ""
    words = f"{shares}mean {values.mean():.2g}, largest {largest} LSB"
    return {"name": name, "uri": heat_map(values, top), "words": words}


def _inside(centre: int, side: int, length: int) -> int:
    """Start of a window around `centre` that stays within 0..length."""
    return max(0, min(centre - side // 2, length - side))
