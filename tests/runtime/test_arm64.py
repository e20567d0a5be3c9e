"""Emulated ARM64 cores: contract 6, the bits of x86, counts of instructions, and an emulation that is missing or dies."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compress.checkpoint import load_student
from compress.errors import BadInput, Unavailable
from export.tflite import export_tflite
from runtime.arm64 import cores, emulator
from runtime.arm64.count import count, instructions
from runtime.arm64.setup import set_up
from runtime.engines import arm64, open_model, remote
from tests.conftest import ROOT
from tests.runtime.conftest import opened
from tests.runtime.test_engine_contract import (  # contract 6 is one for all engines
    test_computes_what_the_student_computes,
    test_describes_itself,
    test_refuses_what_is_no_rgb_image,
    test_result_is_an_image_of_scale_times_the_size,
    test_results_are_the_callers_own,
    test_same_image_gives_the_same_values_after_another_size,
    test_smallest_image,
    test_takes_a_view_of_an_image,
    test_time_is_split,
)

__all__ = [
    "test_computes_what_the_student_computes", "test_describes_itself", "test_refuses_what_is_no_rgb_image",
    "test_result_is_an_image_of_scale_times_the_size", "test_results_are_the_callers_own",
    "test_same_image_gives_the_same_values_after_another_size", "test_smallest_image", "test_takes_a_view_of_an_image",
    "test_time_is_split",
]  # fmt: skip
CORES = ("cortex-a53", "cortex-a76")
ZOO = sorted((ROOT / "zoo").glob("*.tflite"))
FLOAT, INT8 = (ROOT / "zoo" / f"anchor_x4_{precision}.tflite" for precision in ("float32", "int8"))


@pytest.fixture(scope="session", autouse=True)
def emulation() -> None:
    """Sets the emulation up where it is not, once; skips all tests here where that is not possible."""
    try:
        emulator.versions_at(emulator.HOME)
    except Unavailable:
        try:
            emulator.HOME.mkdir(parents=True, exist_ok=True)
            set_up(emulator.HOME)
        except BadInput as error:
            pytest.skip(f"make arm64: {error}")


@pytest.fixture(scope="session", params=[("arm64", "float32"), ("arm64:cortex-a53", "int8")], ids="-".join)
def engine(request, tiny, emulation):
    with opened(tiny, *request.param) as engine:
        yield engine


@pytest.fixture
def small(photograph):
    """(20, 33, 3)."""
    return np.ascontiguousarray(photograph[:20, 40:73])


@pytest.mark.parametrize("core", CORES)
def test_computes_the_bits_of_x86(small, core):
    assert {"float32", "int8"} <= {open_model(path).metadata.precision for path in ZOO}
    for path in ZOO:
        with open_model(path) as native, open_model(path, engine=f"arm64:{core}") as emulated:
            for image in (small, small[:7, :9]):
                expected, found = native.upscale(image).raw, emulated.upscale(image).raw
                assert np.array_equal(found, expected), path.name


def test_other_precisions_are_as_close_as_the_documentation_says(tiny, tmp_path, small):
    for precision, core in itertools.product(("float16", "int8-dynamic"), CORES):
        path = tmp_path / f"{precision}.tflite"
        if not path.exists():
            export_tflite(load_student(tiny.int8_pt), path, precision)
        with open_model(path) as native, open_model(path, engine=f"arm64:{core}") as emulated:
            apart = np.abs(native.upscale(small).raw - emulated.upscale(small).raw).max()
        assert apart <= (1 / 255 if (precision, core) == ("int8-dynamic", "cortex-a76") else 0), (precision, core)


def test_is_always_labelled_and_never_timed():
    with open_model(INT8, engine="arm64:cortex-a53", threads=2) as engine:
        description = engine.describe()
        assert description.version.startswith("emulated ARM64 (cortex-a53), qemu 7.2")
        assert "ai-edge-litert" in description.version
        assert (description.engine, description.native, description.threads) == ("arm64:cortex-a53", False, 2)
        assert (description.delegate.name, description.delegate.partitions) == ("XNNPACK", 1)
    with open_model(INT8, engine="arm64") as engine:
        assert engine.describe().version.startswith("emulated ARM64 (cortex-a76)")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("arm64:max", "expected a core out of cortex-a35, .*, found 'max', with which qemu 7.2 computes int8 wrongly"),
        ("arm64:max,sme=off", "found 'max,sme=off', with which"),
        ("arm64:cortex-a9", "found 'cortex-a9': choose one"),
        ("arm64:", "expected an engine out of"),
    ],
)
def test_refuses_other_cores(name, sentence):
    with pytest.raises(BadInput, match=sentence):
        open_model(INT8, engine=name)


def test_refuses_other_files():
    with pytest.raises(BadInput, match=r"expected a \.tflite file"):
        open_model(ROOT / "README.md", engine="arm64")


def test_counts_repeat_to_the_last_instruction():
    """Between what the core's widest instructions need for the multiplications alone, and one instruction for each."""
    macs = 214_990_848 * 16 * 24 // 64**2  # the zoo's student: `python -m export.audit` at 64x64
    counts = []
    for path, core, widest in ((FLOAT, "cortex-a76", 4), (INT8, "cortex-a76", 16), (INT8, "cortex-a53", 4)):
        counts.append(instructions(path, core, height=16, width=24, passes=8))
        assert len(set(counts[-1].passes)) == 1
        assert macs / widest < counts[-1].instructions < macs
    assert instructions(INT8, "cortex-a53", height=16, width=24, passes=8) == counts[-1]
    a76_float, a76_int8, a53_int8 = (count.instructions for count in counts)
    assert a76_int8 < 0.5 * min(a76_float, a53_int8)


def test_counts_as_a_command(tmp_path):
    command = [sys.executable, "-m", "runtime.arm64.count", *map(str, ZOO), "--height", "8", "--width", "8"]
    command += ["--core", "cortex-a76", "--json", str(tmp_path / "counts.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "emulated ARM64" in done.stdout
    rows = json.loads((tmp_path / "counts.json").read_text())
    assert [row["file"] for row in rows] == [str(path) for path in ZOO]
    assert all(row["machine"].startswith("emulated ARM64 (cortex-a76)") for row in rows)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"core": "max"}, "computes int8 wrongly"),
        ({"height": 0}, "expected height of 1 or more, found 0"),
        ({"height": 60000, "width": 60000}, "takes images of 60000x60000 pixels, found that LiteRT refuses"),
        ({"timeout": 0.2}, "within 0.2 s, found that they take longer"),
    ],
)
def test_refuses_to_count(options, sentence):
    with pytest.raises(BadInput, match=sentence):
        instructions(INT8, **{"core": "cortex-a53", "height": 8, "width": 8, **options})


@pytest.mark.parametrize(
    ("files", "options", "sentence"),
    [
        ([FLOAT, ROOT / "missing.tflite"], {}, r"found nothing at .*missing\.tflite"),
        ([FLOAT], {"json": Path("/proc/nothing/counts.json")}, "expected a folder that takes new files"),
        ([FLOAT], {"core": ["cortex-a53", "max"]}, "computes int8 wrongly"),
    ],
)
def test_refuses_before_it_counts(files, options, sentence):
    with pytest.raises(BadInput, match=sentence):
        count(files, timeout=0.001, **options)


def test_says_how_to_set_it_up(tmp_path, monkeypatch):
    monkeypatch.setattr(emulator, "HOME", tmp_path)
    monkeypatch.setattr(arm64, "_children", {})
    with pytest.raises(Unavailable, match="found them not set up: make arm64"):
        open_model(INT8, engine="arm64")


def test_a_crash_of_qemu_is_a_sentence(small, tmp_path, monkeypatch):
    """A processor that claims dot products which it does not have dies of the first."""
    for part in ("qemu", "root", "site", "count.so", "ready.json"):
        (tmp_path / part).symlink_to(emulator.HOME / part)
    monkeypatch.setattr(emulator, "HOME", tmp_path)
    monkeypatch.setattr(arm64, "_children", {})
    liar = cores.Core("cortex-a53", cores.CORES["cortex-a76"].part, cores.CORES["cortex-a76"].features)
    monkeypatch.setitem(cores.CORES, "cortex-a53", liar)
    with open_model(INT8, engine="arm64:cortex-a53") as engine:
        sentence = (
            rf"process killed by signal {signal.SIGILL.value} \(qemu: uncaught target signal 4 .*: open the file again"
        )
        with pytest.raises(BadInput, match=sentence):
            engine.upscale(small)
    with pytest.raises(
        BadInput, match=r"expected .*int8\.tflite to run on an emulated cortex-a53, found its process killed by"
    ):
        instructions(INT8, "cortex-a53", height=8, width=8)
    assert not list(tmp_path.rglob("*.core"))


def test_a_process_that_hangs_or_dies_is_replaced(small, monkeypatch):
    with open_model(INT8, engine="arm64") as engine:
        expected = engine.upscale(small).raw
        monkeypatch.setattr(remote, "TIMEOUT", 0.5)
        os.kill(arm64.preload()[0].pid, signal.SIGSTOP)
        with pytest.raises(BadInput, match=r"within 0\.5 s, found that emulated ARM64 \(cortex-a76\) takes longer"):
            engine.upscale(small)
    monkeypatch.undo()
    with open_model(INT8, engine="arm64") as engine:
        assert np.array_equal(engine.upscale(small).raw, expected)


def test_setting_up_again_changes_nothing(capsys):
    before = [(emulator.HOME / part).stat().st_ino for part in ("qemu", "root", "site")]
    set_up(emulator.HOME)
    assert [(emulator.HOME / part).stat().st_ino for part in ("qemu", "root", "site")] == before
    assert "downloading" not in capsys.readouterr().out


def test_a_set_up_that_was_not_finished_does_not_count(tmp_path):
    for part in ("qemu", "root", "site", "count.so", "ready.json"):
        shutil.copyfile(emulator.HOME / part, tmp_path / part) if part == "ready.json" else (tmp_path / part).mkdir()
    assert emulator.versions_at(tmp_path).qemu.startswith("7.2")
    (tmp_path / "site").rmdir()
    with pytest.raises(Unavailable):
        emulator.versions_at(tmp_path)
    (tmp_path / "site").mkdir()
    Path(tmp_path / "ready.json").write_text("{")
    with pytest.raises(Unavailable):
        emulator.versions_at(tmp_path)
