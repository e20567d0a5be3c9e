"""Contract 6: what every engine does, whatever it runs."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from compress.checkpoint import load_student
from compress.errors import BadInput, Unavailable
from runtime.engines import BY_SUFFIX, ENGINES, open_model, opener_of
from runtime.engines.base import to_pixels, to_real
from tests.runtime.conftest import CASES, SCALE, Tiny, opened


@pytest.fixture(scope="session", params=CASES, ids="-".join)
def engine(request, tiny):
    with opened(tiny, *request.param) as engine:
        yield engine


@pytest.fixture(params=ENGINES)
def name(request) -> str:
    """Of an engine that is here."""
    try:
        opener_of("any file", request.param)
    except Unavailable as missing:
        pytest.skip(str(missing))
    return request.param


def test_result_is_an_image_of_scale_times_the_size(engine, photograph):
    result = engine.upscale(photograph)
    height, width, _ = photograph.shape
    assert result.image.shape == result.raw.shape == (SCALE * height, SCALE * width, 3)
    assert result.image.dtype == np.uint8
    assert result.raw.dtype == np.dtype(engine.metadata.output.dtype)
    assert np.array_equal(result.image, to_pixels(result.raw))


def test_computes_what_the_student_computes(engine, tiny, photograph):
    student, _ = tiny.of(engine.metadata.precision)
    result = open_model(student).upscale(photograph)
    found = engine.upscale(photograph).raw
    rounded = found.dtype != np.float32  # to pixels
    unit = 255 if rounded else 1
    expected = to_real(result.image if rounded else result.raw) * unit
    found = to_real(found) * unit
    # LiteRT's own kernels requantize in fixed point, Core ML's arithmetic is of real numbers; others do as the reference
    integer_limit = 4 if engine.describe().engine in ("litert-builtin", "coreml") else 1
    apart = np.abs(found - expected)
    assert apart.max() <= (integer_limit if rounded else 1e-5) + 1e-9
    if engine.describe().engine == "coreml":
        assert (apart <= 1).mean() > 0.999
    assert found.std() > 0.05 * np.abs(found).max()


def test_same_image_gives_the_same_values_after_another_size(engine, photograph):
    first = engine.upscale(photograph)
    engine.upscale(np.ascontiguousarray(photograph[:40, :33]))
    again = engine.upscale(photograph)
    assert np.array_equal(first.raw, again.raw)


def test_results_are_the_callers_own(engine, photograph):
    first = engine.upscale(photograph)
    kept, given = first.raw.copy(), photograph.copy()
    engine.upscale(255 - photograph)
    assert np.array_equal(first.raw, kept)
    first.raw[:] = 0
    assert np.array_equal(engine.upscale(given).raw, kept)
    assert np.array_equal(given, photograph)


def test_takes_a_view_of_an_image(engine, photograph):
    view = photograph[::2, ::-1]
    assert np.array_equal(engine.upscale(view).raw, engine.upscale(np.ascontiguousarray(view)).raw)


def test_smallest_image(engine):
    assert engine.upscale(np.full((1, 1, 3), 200, np.uint8)).image.shape == (SCALE, SCALE, 3)


def test_time_is_split(engine, photograph):
    timing = engine.upscale(photograph).timing
    assert min(timing.prepare, timing.run, timing.read) > 0


def test_describes_itself(request, engine, tiny):
    description = engine.describe()
    assert (description.engine, description.precision) == request.node.callspec.params["engine"]
    assert (description.path, description.threads) == (engine.path, 1)
    student = load_student(tiny.of(engine.metadata.precision)[0])
    assert description.metadata.student_sha256 == student.file_hash
    assert any(character.isdigit() for character in description.version)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
    ],
    ids=["float", "grey", "alpha", "empty"],
)
def test_refuses_what_is_no_rgb_image(engine, image):
    with pytest.raises(BadInput, match="expected an RGB image"):
        engine.upscale(image)


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_neither_threads_nor_opening_again_change_integers(tiny, photograph, name, precision):
    outputs = []
    for threads in (1, 2, 4, 1):
        with opened(tiny, name, precision, threads) as engine:
            assert engine.describe().threads == threads
            outputs.append(engine.upscale(photograph).raw.astype(np.float64))
    differences = [np.abs(output - outputs[0]).max() for output in outputs]
    assert max(differences) <= (0 if precision == "int8" else 1e-5)
    assert differences[-1] == 0


def test_closes_alone_and_twice(tiny, photograph, name):
    with opened(tiny, name, "float32") as kept:
        expected = kept.upscale(photograph).raw
        with opened(tiny, name, "float32") as closed:
            closed.upscale(photograph)
        closed.close()
        assert np.array_equal(kept.upscale(photograph).raw, expected)


@pytest.mark.parametrize("threads", [0, 1025, 2**31])
def test_refuses_no_threads_and_too_many(tiny, name, threads):
    with pytest.raises(BadInput, match=f"expected 1 to 1024 threads, found {threads}:"):
        opened(tiny, name, "float32", threads=threads)


def _suffix(tiny: Tiny, name: str) -> str:
    return tiny.file_for(name, "float32").suffix


def test_refuses_files_of_other_formats(tiny, name):
    others = {tiny.file_for(engine, "float32") for engine in BY_SUFFIX.values()} - {tiny.file_for(name, "float32")}
    assert len(others) == len(BY_SUFFIX) - 1
    for other in others:
        with pytest.raises(BadInput, match="expected"):
            open_model(other, engine=name)


def test_refuses_missing_files_and_folders(tiny, tmp_path, name):
    missing = tmp_path / f"missing{_suffix(tiny, name)}"
    with pytest.raises(BadInput, match=f"found (nothing|no file) at .*{missing.name}"):
        open_model(missing, engine=name)
    missing.mkdir()
    with pytest.raises(BadInput, match="expected"):
        open_model(missing, engine=name)


@pytest.mark.parametrize("kept", [0.5, 0.0], ids=["cut", "empty"])
def test_refuses_cut_files(tiny, tmp_path, name, kept):
    whole = tiny.file_for(name, "float32")
    path = tmp_path / whole.name
    parts: list[Path] = []
    for part in [whole] if name != "ncnn" else [whole.with_suffix(suffix) for suffix in (".bin", ".json", ".param")]:
        (shutil.copytree if part.is_dir() else shutil.copyfile)(part, tmp_path / part.name)
        parts.append(tmp_path / part.name)
    cut = parts[-1] if parts[-1].is_file() else next(parts[-1].rglob("*.mlmodel"))
    content = cut.read_bytes()
    cut.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(BadInput, match="expected") as refused:
        open_model(path, engine=name)
    assert "\n" not in str(refused.value)
