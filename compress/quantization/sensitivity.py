"""What each layer loses: the student with one layer alone in int8 and all others float, held against ground truth.

Measured on crops of images that nothing was calibrated on.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor, nn

from compress import metrics
from compress.data.benchmarks import Benchmark
from compress.deploy import DeployGraph
from compress.errors import BadInput
from compress.quantization.integer import IntegerStudent
from compress.quantization.mix import Layer, layers
from compress.quantization.ptq import Plan, Trial
from compress.quantization.scheme import Arithmetic, Quantization

CROPS, SIDE = 16, 64
BATCH = 4


@dataclass(frozen=True)
class Sensitivity:
    """Of one layer, in dB.

    Attributes:
        name: of the layer, see `compress.quantization.mix`.
        macs: per LR pixel.
        loss: PSNR on Y against ground truth, float student minus the student with only this layer in int8.
        psnr: between the outputs of these two, over R, G and B; inf where they are equal.
    """

    name: str
    macs: int
    loss: float
    psnr: float


class Judge:
    """Crops with ground truth, and what the float student makes of them.

    Args:
        graph: float.
        benchmark: images of the student's scale that were not calibrated on.
        count: crops.
        side: of a crop, in LR pixels; smaller where an image is.

    Raises:
        BadInput: no image, or fewer than one crop.
    """

    def __init__(self, graph: DeployGraph, benchmark: Benchmark, *, count: int = CROPS, side: int = SIDE):
        images = list(benchmark)
        if not images or count < 1:
            raise BadInput(
                f"expected at least 1 crop of at least 1 image to judge on, found {count} of {len(images)}: name a set "
                "of photographs that were not calibrated on."
            )
        self.graph, self.benchmark = graph, benchmark
        self.side = min(side, *(min(lr.shape[:2]) for _, lr, _ in images))
        lrs, self.truths = [], []
        for i in range(count):
            _, lr, hr = images[i % len(images)]
            draw = np.random.default_rng((1, i))
            top, left = (int(draw.integers(size - self.side + 1)) for size in lr.shape[:2])
            lrs.append(lr[top : top + self.side, left : left + self.side])
            y, x, s = top * graph.scale, left * graph.scale, self.side * graph.scale
            self.truths.append(hr[y : y + s, x : x + s])
        self.lr = torch.from_numpy(np.stack(lrs)).permute(0, 3, 1, 2).float() / 255
        self.wanted = self._outputs(graph).clamp(0, 1)
        self.float_psnr = self._against_truth(self.wanted)

    def loss(self, quantization: Quantization) -> float:
        """dB against ground truth, float student minus quantized student."""
        return self.float_psnr - self._against_truth(self._outputs(IntegerStudent(self.graph, quantization)))

    def sensitivity(self, layer: Layer, quantization: Quantization) -> Sensitivity:
        """Of a layer, from a quantization in which it alone is int8."""
        found = self._outputs(IntegerStudent(self.graph, quantization))
        error = (found - pixels(self.wanted)).double().square().mean().item()
        psnr = -10 * math.log10(error) if error else math.inf
        return Sensitivity(layer.name, layer.macs, self.float_psnr - self._against_truth(found), psnr)

    def describe(self) -> dict[str, Any]:
        """For reports and provenance."""
        return {
            "set": self.benchmark.name,
            "images": len(self.benchmark),
            "crops": len(self.truths),
            "side": self.side,
            "float_psnr": self.float_psnr,
        }

    @torch.no_grad()
    def _outputs(self, network: nn.Module) -> Tensor:
        return torch.cat([network(batch) for batch in self.lr.split(BATCH)])

    def _against_truth(self, sr: Tensor) -> float:
        images = (pixels(sr) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        pairs = zip(images, self.truths, strict=True)
        return metrics.mean(metrics.psnr(image, truth, self.graph.scale) for image, truth in pairs)


def pixels(sr: Tensor) -> Tensor:
    """Rounded to the 256 values that an image has."""
    return (sr.clamp(0, 1) * 255).round() / 255


def sensitivities(
    trial: Trial, plan: Plan, judge: Judge, on_layer: Callable[[str], object] = lambda name: None
) -> list[Sensitivity]:
    """One row per layer, in order of execution. Biases are not corrected: that would mend other layers' errors.

    Args:
        trial, plan: that the int8 student was made with.
        judge: on other content.
        on_layer: called with the name of every finished layer.
    """
    found, all_layers = [], layers(trial.graph)
    alone = Plan(range=plan.range, equalization=plan.equalization, clipping=plan.clipping)
    for layer in all_layers:
        chosen: Mapping[str, Arithmetic] = {one.name: "float" for one in all_layers if one is not layer}
        found.append(judge.sensitivity(layer, trial.quantization(alone, chosen)))
        on_layer(layer.name)
    return found


def to_report(rows: list[Sensitivity], judged_on: dict[str, Any], loss: float, **more: Any) -> dict[str, Any]:
    """For JSON: what was judged on, the loss in int8 throughout, and the rows; a PSNR that is inf is null."""
    plain = [{**asdict(row), "psnr": row.psnr if math.isfinite(row.psnr) else None} for row in rows]
    return {"judged_on": judged_on, "int8_loss": loss, "layers": plain, **more}


def table(rows: list[Sensitivity]) -> Table:
    """The rows, the worst first."""
    made = Table("layer alone in int8", "MACs per LR pixel", "loss, dB", "to the float output, dB")
    for row in sorted(rows, key=lambda row: row.psnr):
        made.add_row(row.name, f"{row.macs:,}", f"{row.loss + 0.0:.4f}", f"{row.psnr:.2f}")
    return made
