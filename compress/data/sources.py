"""Where training images come from when the user names none: the photographs that scikit-image installs."""

import importlib.util
from pathlib import Path
from typing import Literal

from compress.errors import BadInput

TRAIN = ("astronaut.png", "motorcycle_left.png", "ihc.png", "retina.jpg", "hubble_deep_field.jpg", "brick.png",
         "grass.png", "gravel.png", "camera.png")  # fmt: skip
TEST = ("chelsea.png", "coffee.png", "rocket.jpg")
DEFAULT_SOURCE = "skimage"


def skimage_photographs(split: Literal["train", "test"]) -> list[Path]:
    """Files of scikit-image's sample photographs.

    Args:
        split: 'train' for training and calibration, 'test' for what is held out from both.

    Raises:
        BadInput: scikit-image is not installed.
    """
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise BadInput("expected scikit-image for its sample photographs, found it missing: pip install scikit-image.")
    return [Path(found.origin).parent / "data" / name for name in (TRAIN if split == "train" else TEST)]
