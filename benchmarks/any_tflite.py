"""Any .tflite, ours or not, in LiteRT's interpreter: pixels in and out by the file's own scales.

`python -m benchmarks.any_tflite FILE SIDE` prints the peak memory of one inference, in bytes; see `runtime.peak`.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from export.chatter import silenced
from runtime.peak import peak_raised_by

Pixels = NDArray[np.uint8]


class AnyTflite:
    """A .tflite of one image input and one image output, NHWC, that means real numbers in [0, 1].

    Args:
        path: of the file.
        side: height and width of the LR image.
        threads: of the interpreter.
    """

    def __init__(self, path: Path, side: int, threads: int = 1):
        with silenced():
            self._interpreter = Interpreter(str(path), num_threads=threads)
            [given] = self._interpreter.get_input_details()
            if tuple(given["shape"]) != (1, side, side, 3):
                self._interpreter.resize_tensor_input(given["index"], [1, side, side, 3])
            self._interpreter.allocate_tensors()
        [self._input], [self._output] = self._interpreter.get_input_details(), self._interpreter.get_output_details()

    @property
    def sr_shape(self) -> list[int]:
        """Height, width and channels of the SR image."""
        return [int(n) for n in self._output["shape"][1:]]

    def set_image(self, lr: Pixels) -> None:
        """Takes an LR image (side, side, 3)."""
        self._interpreter.set_tensor(self._input["index"], _stored(lr[None] / np.float32(255), self._input))

    def run(self) -> None:
        """Runs the network alone."""
        self._interpreter.invoke()

    def upscale(self, lr: Pixels) -> Pixels:
        """The SR image of an LR image (side, side, 3)."""
        self.set_image(lr)
        self.run()
        sr = _real(self._interpreter.get_tensor(self._output["index"])[0], self._output)
        return np.rint(np.clip(sr, 0, 1) * 255).astype(np.uint8)


def noise(side: int) -> Pixels:
    """An image to measure with."""
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)


def in_tiles(upscale: Callable[[Pixels], Pixels], side: int) -> Callable[[Pixels], Pixels]:
    """Images of any size through an upscaler of one size, in tiles; the last row and column are filled up by repetition.

    Seams show, so that only figures of the same tiles compare.
    """

    def tiled(lr: Pixels) -> Pixels:
        height, width = lr.shape[:2]
        filled = np.pad(lr, ((0, -height % side), (0, -width % side), (0, 0)), "edge")
        rows = [
            np.hstack([upscale(filled[top : top + side, left : left + side]) for left in range(0, width, side)])
            for top in range(0, height, side)
        ]
        sr = np.vstack(rows)
        scale = sr.shape[0] // filled.shape[0]
        return sr[: scale * height, : scale * width]

    return tiled


def peak_memory(path: Path, side: int) -> int:
    """Bytes by which creating, allocating and one inference on one thread raise the peak of a fresh process."""
    command = [sys.executable, "-m", "benchmarks.any_tflite", str(path), str(side)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def _stored(real: NDArray[np.float32], tensor: dict[str, Any]) -> NDArray[Any]:
    if tensor["dtype"] == np.float32:
        return real
    scale, zero = tensor["quantization"]
    limits = np.iinfo(tensor["dtype"])
    return np.clip(np.rint(real / scale) + zero, limits.min, limits.max).astype(tensor["dtype"])


def _real(values: NDArray[Any], tensor: dict[str, Any]) -> NDArray[np.float32]:
    if tensor["dtype"] == np.float32:
        return values
    scale, zero = tensor["quantization"]
    return (values.astype(np.float32) - zero) * np.float32(scale)


def main() -> None:
    path, side = Path(sys.argv[1]), int(sys.argv[2])
    lr = noise(side)

    def infer() -> None:
        model = AnyTflite(path, side)
        model.set_image(lr)
        model.run()

    print(peak_raised_by(infer))


if __name__ == "__main__":
    main()
