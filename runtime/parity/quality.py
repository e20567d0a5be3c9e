"""Quality of pictures against ground truth, image by image."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

from compress import metrics
from compress.data.benchmarks import Benchmark
from compress.errors import BadInput
from runtime.engines.base import Image
from runtime.parity.results import SetLoss

Distance = Callable[[Image, Image], float]


class Scores:
    """Of one program's pictures of one set.

    Args:
        distance: LPIPS, or None to leave it out.
        border: pixels left out on every side for PSNR.
    """

    def __init__(self, distance: Distance | None, border: int):
        self._distance, self._border = distance, border
        self.psnr: list[float] = []
        self.lpips: list[float] = []

    def add(self, picture: Image, hr: Image) -> None:
        self.psnr.append(metrics.psnr(picture, hr, self._border))
        if self._distance:
            self.lpips.append(self._distance(picture, hr))


def set_loss(benchmark: Benchmark, student: Scores, file: Scores) -> SetLoss:
    """Of a file's pictures and the float student's, of the same images."""
    computed = bool(student.lpips)
    return SetLoss(
        name=benchmark.name,
        images=len(file.psnr),
        student=metrics.mean(student.psnr),
        file=metrics.mean(file.psnr),
        student_lpips=metrics.mean(student.lpips) if computed else None,
        file_lpips=metrics.mean(file.lpips) if computed else None,
    )


def backbone_here() -> tuple[metrics.Backbone | None, str]:
    """The backbone of LPIPS that works without a download, alex first, or None; and why there is none."""
    import torch

    weights = Path(torch.hub.get_dir()) / "checkpoints"
    here = [name for name in get_args(metrics.Backbone) if (weights / metrics.BACKBONE_FILES[name]).is_file()]
    reason = "no backbone's weights on this machine; `python -m runtime.parity --lpips alex` fetches them"
    for name in here:
        try:
            metrics.lpips_metric(name)
            return name, ""
        except BadInput as error:
            reason = str(error)
    return None, reason
