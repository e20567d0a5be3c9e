""".param and .bin files: equal to the PyTorch student, native layers, the names that upscalers want, honest metadata."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ncnn
import numpy as np
import pnnx
import pytest

from compress.checkpoint import Student, load_student
from compress.deploy import Conv, Repeat
from compress.errors import BadInput
from compress.files import sha256
from export.metadata import read_ncnn
from export.ncnn import KNOWN, NcnnFile, export_ncnn, main
from runtime.engines import open_model
from tests.export.conftest import SIZES, STUDENTS, left, pixels_of, reference_of, refused

Exported = Callable[[str, str], tuple[Student, NcnnFile]]
NATIVE = {"Input", "Split", "Convolution", "BinaryOp", "Clip", "PixelShuffle", "ReLU", "Sigmoid"}


@pytest.fixture(scope="module")
def exported(float_student: Callable[[str], Student], folder: Path) -> Exported:
    """(student, file) of a name and precision; every file is written once."""
    made: dict[tuple[str, str], tuple[Student, NcnnFile]] = {}

    def export(name: str, precision: Any) -> tuple[Student, NcnnFile]:
        if (name, precision) not in made:
            student = float_student(name)
            made[name, precision] = student, export_ncnn(student, folder / f"{name}_{precision}.param", precision)
        return made[name, precision]

    return export


@pytest.mark.parametrize("name", list(STUDENTS))
def test_a_float32_file_equals_the_student_in_native_layers(exported, photographs, name):
    student, file = exported(name, "float32")
    engine = open_model(file.path)
    for size in (*SIZES, (1, 3)):
        pixels = np.ascontiguousarray(pixels_of(size, photographs))
        found, expected = engine.upscale(pixels).raw, reference_of(student, pixels)
        assert found.shape == (size[0] * student.scale, size[1] * student.scale, 3)
        assert np.abs(found - expected).max() < 1e-5
        assert size == (1, 3) or expected.std() > 0.01, "a flat output would prove nothing"
    assert set(file.operators) <= NATIVE
    convolutions = sum(isinstance(operator, (Conv, Repeat)) for _, operator, _ in student.deploy().steps())
    assert file.operators["Convolution"] == convolutions


@pytest.mark.parametrize("name", list(STUDENTS))
def test_a_float16_file_is_near_the_student_and_smaller(exported, photographs, name):
    student, file = exported(name, "float16")
    pixels = np.ascontiguousarray(pixels_of((17, 21), photographs))
    assert 0 < np.abs(open_model(file.path).upscale(pixels).raw - reference_of(student, pixels)).max() < 4e-3
    _, whole = exported(name, "float32")
    weights = [one.path.with_suffix(".bin").stat().st_size for one in (file, whole)]
    assert weights[0] < 0.6 * weights[1]


def test_an_upscaler_finds_its_blobs(exported, photographs):
    """As Real-ESRGAN-ncnn-vulkan and upscayl ask for them, with nothing known but the two files."""
    student, file = exported("anchor_x4", "float32")
    net = ncnn.Net()
    assert net.load_param(str(file.path)) == net.load_model(str(file.path.with_suffix(".bin"))) == 0
    pixels = np.ascontiguousarray(pixels_of((24, 20), photographs))
    image = ncnn.Mat.from_pixels(pixels, ncnn.Mat.PixelType.PIXEL_RGB, 20, 24)
    image.substract_mean_normalize([], [1 / 255] * 3)
    extractor = net.create_extractor()
    extractor.input("data", image)
    failed, made = extractor.extract("output")
    assert not failed
    assert np.abs(np.asarray(made).transpose(1, 2, 0) - reference_of(student, pixels)).max() < 4e-3  # float16 inside


def test_other_names_are_in_the_file_and_its_metadata(float_student, tmp_path, photographs):
    student = float_student("prelu_tanh")
    file = export_ncnn(student, tmp_path / "s.param", "float32", names=("in0", "out0"))
    lines = file.path.read_text().splitlines()
    assert lines[2].split()[-1] == "in0"
    assert "out0" in lines[-1].split()
    assert read_ncnn(file.path)[1] == ("in0", "out0")
    pixels = np.ascontiguousarray(pixels_of((16, 16), photographs))
    assert np.abs(open_model(file.path).upscale(pixels).raw - reference_of(student, pixels)).max() < 1e-5


@pytest.mark.parametrize("precision", KNOWN)
def test_the_files_describe_themselves(exported, precision):
    student, file = exported("anchor_x3", precision)
    found, names = read_ncnn(file.path)
    assert (found, names) == (file.metadata, ("data", "output"))
    assert (found.student_sha256, found.sizes, found.precision) == (student.file_hash, "any", precision)
    assert found.producer.keys() == {"torch", "pnnx", "ncnn"}
    text = file.path.with_suffix(".json").read_text()
    assert all(sha256(file.path.with_suffix(suffix)) in text for suffix in (".param", ".bin"))
    assert file.file_bytes == sum(file.path.with_suffix(one).stat().st_size for one in (".param", ".bin", ".json"))


def test_the_command_writes_three_files_and_a_log(saved, command):
    done = command("export.ncnn", saved)
    assert done.returncode == 0, done.stderr
    stem = "student_float32"
    assert left(saved.parent) == {"student.pt", *(f"{stem}{one}" for one in (".param", ".bin", ".json", ".log"))}
    assert done.stdout.startswith(f"wrote {saved.with_name(f'{stem}.param')}: float32, ")
    assert "pass_ncnn" in saved.with_name(f"{stem}.log").read_text()
    assert done.stderr == ""


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(saved, float_student):
    folder = saved.parent
    for precision in ("int8", "int8-weights"):
        refused(main, folder, "expected a precision out of float32, float16 .*ncnn", saved, precision=precision)
    refused(main, folder, "end in .param", saved, out=folder / "student.bin")
    for names in ("data", "data,data", "in 0,out0"):
        refused(main, folder, "two names with a comma", saved, names=names)
    (folder / "student_float32.bin").write_bytes(b"mine")
    refused(main, folder, "student_float32.bin exists: .* or --force to replace it", saved)
    assert (folder / "student_float32.bin").read_bytes() == b"mine"
    with pytest.raises(BadInput, match="ncnn makes its own int8 scales"):
        export_ncnn(float_student("anchor_x2"), folder / "a.param", "int8")


def test_missing_packages_name_what_to_install(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "pnnx", None)
    refused(main, saved.parent, r"found no pnnx: pip install 'pocketsr\[ncnn\]'", saved)


def test_a_converter_that_fails_is_reported_with_its_log_and_leaves_no_file(saved, monkeypatch):
    monkeypatch.setattr(pnnx, "EXEC_PATH", "/bin/false")
    with pytest.raises(
        BadInput,
        match=r"s.param, found a failure at the step 'head' .CalledProcessError",
    ):
        export_ncnn(load_student(saved), saved.with_name("s.param"), "float32")
    assert left(saved.parent) == {"student.pt", "s.log"}
    assert "Traceback" in saved.with_name("s.log").read_text()


def test_a_file_that_ncnn_refuses_is_not_written(saved, monkeypatch):
    real = subprocess.run

    def spoil(command: list[str], *, cwd: Path, **options: Any) -> Any:
        done = real(command, cwd=cwd, **options)
        param = cwd / "student.param"
        param.write_text(param.read_text().replace("PixelShuffle", "NoSuchLayer "))
        return done

    monkeypatch.setattr(subprocess, "run", spoil)
    with pytest.raises(BadInput, match="ncnn does not load what pnnx wrote"):
        export_ncnn(load_student(saved), saved.with_name("s.param"), "float32")
    assert left(saved.parent) == {"student.pt", "s.log"}
