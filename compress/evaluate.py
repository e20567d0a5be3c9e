"""The one protocol: PSNR, SSIM and LPIPS of anything that upscales, on benchmark sets."""

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from compress import files, metrics
from compress.cli import command_line
from compress.data.benchmarks import BUILT_IN, Benchmark, open_benchmark
from compress.data.bicubic import imresize
from compress.errors import BadInput

if TYPE_CHECKING:  # a phone evaluates engines without torch
    from torch import nn

Image = NDArray[np.uint8]
Upscaler = Callable[[Image], Image]


def evaluate(
    upscale: Upscaler,
    benchmark: Benchmark,
    *,
    lpips: metrics.Backbone | None = None,
    save: Path | None = None,
    on_image: Callable[[str], object] = lambda name: None,
) -> dict[str, Any]:
    """Judges an upscaler on one benchmark set.

    Args:
        upscale: (h, w, 3) uint8 RGB to (s*h, s*w, 3) uint8 RGB, with the scale s of the benchmark.
        benchmark: from `open_benchmark`.
        lpips: the backbone of LPIPS; None leaves LPIPS out.
        save: folder for the super-resolved images, as `<set>_x<scale>/<name>.png`.
        on_image: called with the name of every finished image.

    Returns:
        A row: set, scale, images, psnr (dB), ssim, lpips or None, identical (images equal in Y, which the mean of
        PSNR leaves out), per_image (name, psnr, ssim, lpips), protocol. A PSNR is inf for identical images.

    Raises:
        BadInput: the set cannot be read, LPIPS is not available, or `upscale` returns another size.
    """
    distance = metrics.lpips_metric(lpips) if lpips else None
    rows = []
    for name, lr, hr in benchmark:
        sr = upscale(lr)
        if sr.shape != hr.shape or sr.dtype != np.uint8:
            raise BadInput(
                f"expected a uint8 image of shape {hr.shape} for {name} of {benchmark.name} at x{benchmark.scale}, "
                f"found {sr.dtype} of shape {sr.shape}: the model's scale or output does not fit."
            )
        if save:
            _save(sr, save / f"{benchmark.name}_x{benchmark.scale}" / f"{name}.png")
        rows.append(
            {
                "name": name,
                "psnr": metrics.psnr(sr, hr, benchmark.scale),
                "ssim": metrics.ssim(sr, hr, benchmark.scale),
                "lpips": distance(sr, hr) if distance else None,
            }
        )
        on_image(name)
    protocol = metrics.Protocol(lpips=f"lpips v0.1, {lpips}, whole images" if lpips else None, lr=benchmark.lr)
    return {
        "set": benchmark.name,
        "scale": benchmark.scale,
        "images": len(rows),
        "psnr": metrics.mean(row["psnr"] for row in rows),
        "ssim": metrics.mean(row["ssim"] for row in rows),
        "lpips": metrics.mean(row["lpips"] for row in rows) if lpips else None,
        "identical": sum(row["psnr"] == math.inf for row in rows),
        "per_image": rows,
        "protocol": dataclasses.asdict(protocol),
    }


def bicubic_upscaler(scale: int) -> Upscaler:
    """MATLAB's bicubic: the floor of every table."""
    return lambda lr: imresize(lr, scale)


def torch_upscaler(network: "nn.Module") -> Upscaler:
    """A network (N, 3, h, w) in [0, 1] to (N, 3, s*h, s*w) as an upscaler of uint8 images, on the network's device.

    Its output is clipped to [0, 1] and rounded to the nearest of 0..255, ties to even as numpy's rint.
    """
    import torch

    tensors = [*network.parameters(), *network.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")

    @torch.no_grad()
    def upscale(lr: Image) -> Image:
        x = torch.tensor(lr, device=device).permute(2, 0, 1)[None].float() / 255
        sr = network(x.contiguous(memory_format=torch.channels_last))
        pixels = (sr[0].float().clamp(0, 1) * 255).round().to(torch.uint8)
        return pixels.permute(1, 2, 0).cpu().numpy()

    return upscale


def main(
    student: Path | None = None,
    *,
    sets: Sequence[str] = (BUILT_IN,),
    data: Path | None = None,
    scale: int | None = None,
    lpips: Literal["alex", "squeeze", "vgg", "none"] = "none",
    bicubic: bool = False,
    out: Path | None = None,
    save: Path | None = None,
) -> None:
    """Computes PSNR, SSIM and LPIPS of a student on benchmark sets.

    Args:
        student: the student.pt to judge; may be left out with --bicubic.
        sets: names of benchmark sets below the data folder, 'skimage' (always there), or folders of images.
        data: folder of benchmark sets; default: the environment's POCKETSR_DATA, else data/eval.
        scale: 2, 3 or 4; default: the student's.
        lpips: backbone for LPIPS; the literature uses alex.
        bicubic: judge MATLAB's bicubic as well.
        out: JSON file for the rows, with every image and the protocol; figures that are not finite become null.
        save: folder for the super-resolved images.
    """
    models, scale = _models(student, scale, bicubic)
    benchmarks = [open_benchmark(name, scale, data) for name in sets]
    backbone = None if lpips == "none" else lpips
    rows = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for model, upscale in models.items():
            for benchmark in benchmarks:
                task = progress.add_task(f"{model}, {benchmark.name} x{scale}", total=len(benchmark))
                folder = save / model if save else None
                row = evaluate(
                    upscale, benchmark, lpips=backbone, save=folder, on_image=lambda _, t=task: progress.advance(t)
                )
                rows.append({"model": model, **row})
    Console().print(_table(rows))
    if out:
        files.write_text(out, json.dumps(_plain(rows), indent=1, allow_nan=False) + "\n")


def _models(student: Path | None, scale: int | None, bicubic: bool) -> tuple[dict[str, Upscaler], int]:
    """What is to be judged, by name, and at which scale."""
    models: dict[str, Upscaler] = {}
    if student:
        from compress.checkpoint import load_student

        loaded = load_student(student)
        if scale not in (None, loaded.scale):
            raise BadInput(f"expected --scale {loaded.scale}, which {student} has, found {scale}: leave --scale out.")
        scale = loaded.scale
        models[student.stem] = torch_upscaler(loaded.reference())
    if scale is None or not (student or bicubic):
        raise BadInput("expected a student.pt, or --bicubic with --scale, found neither: name what to judge.")
    if bicubic:
        models["bicubic"] = bicubic_upscaler(scale)
    return models, scale


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("model", "set", "scale", "images", "PSNR dB", "SSIM", "LPIPS", "LR")
    for row in rows:
        distance = "-" if row["lpips"] is None else f"{row['lpips']:.4f}"
        figures = (f"{row['psnr']:.2f}", f"{row['ssim']:.4f}", distance)
        table.add_row(row["model"], row["set"], f"x{row['scale']}", str(row["images"]), *figures, row["protocol"]["lr"])
    return table


def _save(image: Image, path: Path) -> None:
    with files.written_atomically(path) as part:
        Pillow.fromarray(image).save(part)


def _plain(value: Any) -> Any:
    """JSON has no inf and nan: they become None."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    command_line(main)
