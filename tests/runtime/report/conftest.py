"""What a report is made of: one photograph judged for real, and pictures and points that were drawn."""

import numpy as np
import pytest

from compress.checkpoint import load_student
from compress.data.benchmarks import Benchmark, open_benchmark
from runtime.parity.gate import check
from runtime.parity.results import ParityReport
from runtime.report.data import Comparison, Curve, Picture, Point, ReportData, Scene
from runtime.report.page import write_report
from runtime.report.scenes import FLOAT
from tests.runtime.conftest import SCALE


@pytest.fixture(scope="session")
def one() -> Benchmark:
    return Benchmark("one photograph", SCALE, open_benchmark("skimage", SCALE).pairs[:1])


@pytest.fixture(scope="session")
def parity(tiny, one) -> ParityReport:
    return check(load_student(tiny.int8_pt), [tiny.float_tflite, tiny.int8_tflite, tiny.int8_onnx], [one], runs=1)


@pytest.fixture
def data(parity) -> ReportData:
    draw = np.random.default_rng(0)
    base = draw.integers(8, 240, (120, 160, 3), np.uint8)
    shifted = base.copy()
    shifted[30, 40] += 7
    pictures = (
        Picture(name="bicubic", kind="bicubic", image=base[::-1], psnr=28.125),
        Picture(name=FLOAT, kind="student", image=base, psnr=30.5),
        Picture(name="int8.tflite", kind="file", image=shifted, psnr=30.25, reference=base, integer=True),
        Picture(name="int8.onnx", kind="file", image=shifted, psnr=30.25, reference=shifted, integer=True),
        Picture(name="ground truth", kind="truth", image=base[:, ::-1]),
    )
    points = (
        Point(name="int8.tflite", group="here", integer=True, file_bytes=70_000, milliseconds=3.5, psnr=30.25),
        Point(name="SRGAN", group="peer", integer=False, file_bytes=3_000_000, milliseconds=None, psnr=29.5),
    )
    return ReportData(
        title="A <script>alert(1)</script> title",
        summary="Summary & more",
        parity=parity,
        scenes=(Scene(name="cat", source="skimage", pictures=pictures),),
        comparison=Comparison(
            set_name="Set5",
            points=points,
            bicubic=28.5,
            lr_size=(128, 128),
            threads=1,
            note="Hollow ones: <elsewhere>.",
        ),
        curves=[
            Curve(name="sum", axis="loss", steps=[1, 2], values=[0.2, 0.1]),
            Curve(name="Set5", axis="psnr", steps=[2], values=[30.0]),
        ],
        provenance={"student": "ab12" * 16},
        protocol=["PSNR on Y < RGB."],
    )


def written(tmp_path, data: ReportData) -> str:
    write_report(tmp_path / "report.html", data)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def text_of(page: str) -> str:
    return page.replace("<wbr>", "")
