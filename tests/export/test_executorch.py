""".pte files: equal to the PyTorch student, all of it on XNNPACK, the student's integers and scales, honest metadata."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from executorch.exir._serialize._program import deserialize_pte_binary

from compress.checkpoint import Student, load_student
from compress.deploy import Repeat
from compress.errors import BadInput
from export.executorch import CASTS, KNOWN, VIEWS, PteFile, export_executorch, main
from export.metadata import Sizes
from export.pte import read_pte
from runtime.engines import open_model
from tests.export.conftest import STUDENTS, left, pixels_of, reference_of, refused

FIXED: Sizes = [[19, 30]]
TWO: Sizes = [[16, 16], [19, 30]]
Exported = Callable[..., tuple[Student, PteFile]]


@pytest.fixture(scope="module")
def exported(float_student: Callable[[str], Student], int8_student: Callable[[str], Student], folder: Path) -> Exported:
    """(student, file) of a name, precision and sizes; every file is written once."""
    made: dict[Any, tuple[Student, PteFile]] = {}

    def export(name: str, precision: Any, sizes: Sizes = FIXED) -> tuple[Student, PteFile]:
        key = name, precision, str(sizes)
        if key not in made:
            student = int8_student(name) if precision == "int8" else float_student(name)
            path = folder / f"{name}_{precision}_{len(made)}.pte"
            made[key] = student, export_executorch(student, path, precision, sizes=sizes, largest=64)
        return made[key]

    return export


def _difference(exported: tuple[Student, PteFile], size: tuple[int, int], photographs: Path) -> Any:
    """What the file gives less what the student gives, in [0, 1] or in LSB."""
    student, file = exported
    pixels = np.ascontiguousarray(pixels_of(size, photographs))
    result, expected = open_model(file.path).upscale(pixels), reference_of(student, pixels)
    assert expected.std() > 0.01, "a flat output would prove nothing"
    if file.metadata.precision == "int8":
        return result.image.astype(int) - np.rint(expected * 255).astype(int)
    return result.raw - expected


@pytest.mark.parametrize("name", list(STUDENTS))
def test_a_float32_file_of_a_fixed_size_equals_the_student(exported, photographs, name):
    assert np.abs(_difference(exported(name, "float32"), (19, 30), photographs)).max() < 1e-5


@pytest.mark.parametrize("name", list(STUDENTS))
def test_an_int8_file_computes_the_students_integers(exported, photographs, name):
    difference = np.abs(_difference(exported(name, "int8"), (19, 30), photographs))
    assert difference.max() <= 1  # a sigmoid, or a slope of 0, may round a tie differently
    assert (difference > 0).mean() < 0.02


@pytest.mark.parametrize("name", list(STUDENTS))
def test_xnnpack_runs_all_of_a_fixed_size_on_integers_alone(exported, name):
    _, file = exported(name, "int8")
    (method,) = read_pte(file.path).values()
    assert (method.delegates, dict(method.outside)) == (1, {})
    assert method.inside["Convert"] == 2 * (name == "prelu_tanh")  # around the sigmoid
    assert {weights.values.dtype for weights in method.weights} == {np.dtype(np.int8)}


@pytest.mark.parametrize("name", list(STUDENTS))
def test_scales_and_integers_in_the_file_are_those_of_the_student(exported, name):
    student, file = exported(name, "int8")
    (method,) = read_pte(file.path).values()
    graph, activations = student.deploy(), student.quantization.activations
    found = list(method.weights)
    for step, layer in student.quantization.layers.items():
        given = activations[graph.inputs[step][0]]
        wanted = layer.weight.permute(0, 2, 3, 1).numpy()
        assert [one for one in found if one.values.shape == wanted.shape and np.array_equal(one.values, wanted)
                and np.array_equal(one.scale, layer.scale.numpy())
                and one.given == (np.float32(given.scale), given.zero_point)], step  # fmt: skip
    kept = [step for step, operator, _ in graph.steps() if not isinstance(operator, Repeat)]
    wanted = {(float(np.float32(activations[step].scale)), activations[step].zero_point) for step in kept}
    assert wanted <= {(float(np.float32(scale)), zero) for scale, zero in method.scales}


@pytest.mark.parametrize(
    ("name", "precision"), [("relu_linear", "float32"), ("anchor_x4", "float16"), ("anchor_x3", "int8")]
)
def test_a_file_of_any_size_takes_any_up_to_its_largest(exported, photographs, name, precision):
    _, file = made = exported(name, precision, "any")
    limit = {"float32": 1e-5, "float16": 4e-3, "int8": 0}[precision]
    for size in ((16, 16), (19, 30), (64, 64), (2, 40)):
        assert np.abs(_difference(made, size, photographs)).max() <= limit
    (method,) = read_pte(file.path).values()
    assert set(method.outside) <= (VIEWS | CASTS if precision == "float16" else VIEWS)
    assert file.metadata.largest == 64
    with pytest.raises(BadInput, match="at most 64x64 pixels, found 65x10"):
        open_model(file.path).upscale(np.zeros((10, 65, 3), np.uint8))


def test_two_sizes_are_two_methods_with_one_set_of_weights(exported, photographs):
    _, file = made = exported("anchor_x2", "int8", TWO)
    assert list(read_pte(file.path)) == ["forward", "forward_19x30"]
    for size in ((16, 16), (19, 30)):
        assert not _difference(made, size, photographs).any()
    _, one = exported("anchor_x2", "int8")
    both, single = (deserialize_pte_binary(path.read_bytes()).named_data for path in (file.path, one.path))
    assert both.pte_data.keys() == single.pte_data.keys()


def test_float16_computes_in_float16_and_is_no_smaller(exported, photographs):
    _, half = made = exported("anchor_x4", "float16")
    assert 1e-5 < np.abs(_difference(made, (19, 30), photographs)).max() < 4e-3
    (method,) = read_pte(half.path).values()
    assert dict(method.outside) == {name: 2 for name in CASTS}
    for weights in method.weights:
        assert np.array_equal(weights.values, weights.values.astype(np.float16))


@pytest.mark.parametrize("precision", KNOWN)
def test_the_file_describes_itself(exported, precision):
    student, file = exported("anchor_x4", precision)
    found = open_model(file.path).metadata
    assert found == file.metadata
    assert (found.student_sha256, found.sizes, found.largest) == (student.file_hash, FIXED, None)
    assert found.input.dtype == ("int8" if precision == "int8" else "float32")
    assert found.producer.keys() == {"torch", "executorch"}


def test_the_command_calibrates_and_says_what_is_outside(saved, photographs, command):
    options = ("--precision", "int8", "--calibration", photographs, "--size", "24x32")
    done = command("export.executorch", saved, *options)
    assert done.returncode == 0, done.stderr
    assert left(saved.parent) == {"student.pt", "student_int8.pt", "student_int8.pte", "student_int8.log"}
    assert "1 XNNPACK delegate, outside: nothing" in done.stdout
    assert done.stderr == ""
    metadata = open_model(saved.with_name("student_int8.pte")).metadata
    assert metadata.student_sha256 == load_student(saved.with_name("student_int8.pt")).file_hash


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(saved, int8_student):
    folder = saved.parent
    refused(main, folder, "add --calibration FOLDER", saved, precision="int8")
    refused(main, folder, "take float weights for float values", saved, precision="int8-weights")
    refused(main, folder, "end in .pte", saved, out=folder / "student.tflite")
    refused(main, folder, "a size like 64x64", saved, size="64")
    refused(main, folder, "--largest of at least 64, found 8", saved, largest=8)
    (folder / "student_float32.pte").write_bytes(b"mine")
    refused(main, folder, "or --force to replace it", saved)
    assert (folder / "student_float32.pte").read_bytes() == b"mine"
    with pytest.raises(BadInput, match="take float weights for float values"):
        export_executorch(int8_student("anchor_x2"), folder / "a.pte", "int8-weights")


def test_a_converter_that_throws_is_reported_with_its_log_and_leaves_no_file(saved, monkeypatch):
    import executorch.exir

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(executorch.exir, "to_edge_transform_and_lower", fail)
    with pytest.raises(BadInput, match="no such operator"):
        export_executorch(load_student(saved), saved.with_name("s.pte"), "float32")
    assert left(saved.parent) == {"student.pt", "s.log"}
    assert "Traceback" in saved.with_name("s.log").read_text()


def test_a_file_that_leaves_something_outside_is_refused(saved, monkeypatch):
    import executorch.backends.xnnpack.partition.xnnpack_partitioner as partitioner

    whole = [one for one in partitioner.ALL_PARTITIONER_CONFIGS if one.__name__ != "AddConfig"]
    monkeypatch.setattr(partitioner, "ALL_PARTITIONER_CONFIGS", whole)
    with pytest.raises(BadInput, match=r"aten::add\.out outside of XNNPACK in forward"):
        export_executorch(load_student(saved), saved.with_name("s.pte"), "float32", sizes=FIXED)
    assert left(saved.parent) == {"student.pt", "s.log"}


def test_a_missing_executorch_names_what_to_install(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "executorch.version", None)
    refused(main, saved.parent, r"pip install 'pocketsr\[executorch\]'", saved)


def test_another_kind_of_file_is_no_pte(tmp_path):
    for content in (b"", b"nonsense", bytes(64) + b"ET12" * 20):
        (tmp_path / "a.pte").write_bytes(content)
        with pytest.raises(BadInput, match="found another kind of file"):
            read_pte(tmp_path / "a.pte")
