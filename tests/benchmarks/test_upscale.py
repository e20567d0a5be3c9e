"""The benchmark of large photographs, on a small one: what contestants report, and what becomes of one that fails."""

import shutil
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.upscale import OURS, TORCH, medians, our_figures, photograph, run_rounds, table, verdict

ZOO = Path(__file__).resolve().parents[2] / "zoo"


def test_contestants_of_one_process_each(tmp_path, capsys):
    photo = photograph(tmp_path, 0.03)
    assert Image.open(photo).size == (200, 150)
    for suffix in (".pt", ".tflite"):
        shutil.copy(ZOO / f"anchor_x4_int8{suffix}", tmp_path)
    model, out = tmp_path / "anchor_x4_int8.tflite", tmp_path / "result.jpg"
    contestants = {
        OURS: partial(our_figures, ["tiled", model, photo, out, 1]),
        TORCH: partial(our_figures, ["torch", ZOO / "anchor_x4.pt", photo, out, 1]),
        "missing": partial(our_figures, ["tiled", tmp_path / "missing.tflite", photo, out, 1]),
    }
    found = run_rounds(contestants, 1)
    assert list(found) == [OURS, TORCH]
    assert "missing: expected a result, found none (" in capsys.readouterr().out
    assert Image.open(out).size == (800, 600)
    rows = {name: medians(figures) for name, figures in found.items()}
    for row in rows.values():
        assert row["megapixels"] == pytest.approx(0.48)
        assert 0 < row["to file"] < row["rate"]
        assert 0 < row["raised"] < row["peak"]
    assert rows[TORCH]["peak"] > 2 * rows[OURS]["peak"]
    assert table(rows).count("\n") == 3
    assert verdict(rows).startswith("ours is ")
    assert verdict({OURS: rows[OURS]}).startswith("no comparison")
