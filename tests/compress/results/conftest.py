"""Figures as pipelines leave them, made up for the tests of the results page."""

from pathlib import Path
from typing import Any

from compress.results.__main__ import read_published
from compress.results.files import SeedResults
from tests.conftest import ROOT

PUBLISHED = read_published(ROOT / "results" / "published.yaml")
SETS = ("Set5", "Set14")
PROTOCOL = {"colour": "Y", "lpips": None, "lr": "files"}


def forms(dense: int, sparse: int | None = None) -> dict[str, int]:
    sparse = dense if sparse is None else sparse
    return {"dense": dense, "sparse": sparse, "compressed": dense - 100_000, "sparse_compressed": sparse - 100_000}


def row_of(name: str, psnr: float, *, ssim: float = 0.8, lpips: float | None = 0.2, **changes: Any) -> dict[str, Any]:
    """A result.json as a training stage leaves it; Set14 lies 3 dB below Set5."""
    options = {
        "method": {"name": "supervised", "options": {}},
        "technique": {"name": "none", "options": {}},
        "schedule": {"learning_rate": 1e-4, "kind": "step", "every": 500, "gamma": 0.5, "ema": 0.999, "steps": 1000},
        "data": {"lr_patch": 24},
        "seed": 0,
    }
    metrics = [
        {"set": one, "psnr": psnr - 3 * i, "ssim": ssim - 0.1 * i, "lpips": lpips, "protocol": PROTOCOL, "images": 5}
        for i, one in enumerate(SETS)
    ]
    base = {
        "stage": name, "kind": "train", "options": options, "architecture": "srresnet", "config": {"blocks": 6},
        "scale": 4, "precision": "float32", "pattern": None, "steps": 1000, "steps_total": 1000, "start": None,
        "teacher": None, "seed": 0, "batch": 16, "training_precision": "bf16-mixed", "losses": {},
        "data": {"source": "DIV2K", "images": 800, "manifest_sha256": "ab" * 32},
        "parameters": 800_000, "macs": 90_000_000_000, "nonzero": 1.0, "storage": {"float32": forms(3_200_000)},
        "metrics": metrics,
    }  # fmt: skip
    return {**base, **changes}


def seed_of(name: str, *rows: dict[str, Any], bicubic: float = 26.0, **changes: Any) -> SeedResults:
    floor = {one: {"set": one, "psnr": bicubic - 3 * i, "ssim": 0.7, "lpips": 0.4} for i, one in enumerate(SETS)}
    fields: dict[str, Any] = {
        "name": name, "folder": Path("results") / name, "title": f"Title of {name}", "seed_document": "A paper",
        "variant": None, "labels": {}, "strip": False, "rows": {row["stage"]: row for row in rows}, "sizes": {},
        "bicubic": floor,
    }  # fmt: skip
    return SeedResults(**{**fields, **changes})


def poster(distilled: float, scratch: float) -> list[dict[str, Any]]:
    return [
        row_of("teacher", 31.0, ssim=0.9),
        row_of("scratch", 30.0 + 10 * (scratch - 0.8), ssim=scratch),
        row_of("distilled", 30.0 + 10 * (distilled - 0.8), ssim=distilled),
    ]


FOUR = {"gan2gan": 28.8, "gan2g": 28.7, "gan2g_al": 28.6, "g2g_al": 29.5}


def park(**psnr: float) -> list[dict[str, Any]]:
    rows = [row_of(name, value, lpips=0.5 - value / 100) for name, value in psnr.items()]
    return [row_of("student", 28.0, lpips=0.22), *rows]
