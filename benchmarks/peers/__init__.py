"""Other converters, each given the same float student and the same calibration crops to write an int8 .tflite from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.checkpoint import Student
from compress.quantization.calibration import CalibrationCrops


@dataclass(frozen=True)
class Task:
    """What every peer starts from.

    Attributes:
        student: float.
        crops: to calibrate on; files are written for images of their size.
        folder: for the files and the converters' logs.
    """

    student: Student
    crops: CalibrationCrops
    folder: Path

    @property
    def side(self) -> int:
        """Height and width of an LR image, in pixels."""
        return int(self.crops.crops.shape[-1])

    def channels_last(self) -> NDArray[np.float32]:
        """The crops as TFLite takes them: (N, side, side, 3) in [0, 1]."""
        return np.ascontiguousarray(self.crops.crops.permute(0, 2, 3, 1).numpy())
