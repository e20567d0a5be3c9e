"""What a pipeline measures of its students, and publishes."""

import json

import pytest
from PIL import Image

from compress.checkpoint import load_student
from compress.data.benchmarks import open_benchmark
from compress.evaluate import bicubic_upscaler, evaluate, torch_upscaler
from compress.results.__main__ import main as results_page
from tests.compress.pipeline.conftest import result_of
from tests.conftest import ROOT


def test_a_result_holds_costs_figures_and_where_the_student_comes_from(finished, tiny_photographs):
    result = result_of(finished, "scratch")
    student = load_student(finished / "scratch" / "student.pt")
    assert result["parameters"] == sum(one.numel() for one in student.network().parameters())
    assert result["storage"]["float32"]["dense"] == pytest.approx(4 * result["parameters"], rel=0.1)
    assert result["macs"] == sum(
        w.numel() * 640 * 360 for name, w in student.weights.items() if name.endswith("weight")
    )
    benchmark = open_benchmark(str(tiny_photographs), 2)
    expected = evaluate(torch_upscaler(student.reference()), benchmark)
    (row,) = result["metrics"]
    assert row["psnr"] == pytest.approx(expected["psnr"])
    assert row["ssim"] == pytest.approx(expected["ssim"])
    assert (result["steps"], result["steps_total"], result["start"], result["teacher"]) == (3, 3, None, None)
    assert result["data"]["images"] == 2
    assert set(result["losses"]) == {"loss", "loss_l1"}
    assert result["seconds"] > 0
    assert result_of(finished, "distilled")["teacher"] == "teacher"
    assert str(tiny_photographs.parent) not in json.dumps({key: result[key] for key in result if key != "made_of"})


def test_a_result_counts_the_steps_of_the_weights_that_it_went_on_from(finished):
    tuned, pruned = result_of(finished, "tuned"), result_of(finished, "pruned")
    assert (pruned["steps"], pruned["steps_total"], pruned["start"]) == (0, 6, "teacher")
    assert (tuned["steps"], tuned["steps_total"], tuned["start"]) == (3, 9, "pruned")


def test_zeros_and_integers_show_in_the_result(finished):
    masked, int8, dense = (result_of(finished, name) for name in ("masked", "int8", "distilled"))
    assert masked["nonzero"] < 0.9
    assert dense["nonzero"] > 0.99
    assert masked["pattern"] == "unstructured"
    assert int8["precision"] == "int8"
    assert int8["storage"]["int8"]["dense"] < 0.5 * int8["storage"]["float32"]["dense"]
    assert masked["storage"]["float32"]["sparse"] < masked["storage"]["float32"]["dense"]


def test_only_the_rows_of_the_report_are_judged(finished):
    assert result_of(finished, "tuned")["metrics"]
    assert result_of(finished, "pruned")["metrics"] == []


def test_bicubic_and_the_strip_belong_to_the_pipeline(finished, tiny_photographs):
    (row,) = json.loads((finished / "bicubic.json").read_text())["metrics"]
    expected = evaluate(bicubic_upscaler(2), open_benchmark(str(tiny_photographs), 2))
    assert row["psnr"] == pytest.approx(expected["psnr"])
    with Image.open(finished / "strip.png") as strip:
        assert strip.width > 3 * 96


def test_published_figures_make_the_results_page(finished, tmp_path):
    folder = finished.parent / "results"
    assert {path.name for path in (folder / "tiny").iterdir()} == {
        "pipeline.json", "bicubic.json", "strip.png", "scratch.json", "tuned.json", "masked.json", "int8.json", "sizes.json",
    }  # fmt: skip
    results_page([folder], out=tmp_path / "page.md", published=ROOT / "results" / "published.yaml")
    text = (tmp_path / "page.md").read_text()
    psnr = result_of(finished, "scratch")["metrics"][0]["psnr"]
    (line,) = [line for line in text.splitlines() if line.startswith("| `scratch` ")]
    assert f"| {psnr:.2f} / " in line
    assert "## A tiny pipeline" in text
    assert "| 6 (pruned) + 3 |" in text
