"""Folders of photographs as a user meets them: what is done, skipped, named and never touched, and kills at any moment."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.kill_upscale import kill_at_random
from runtime.upscale.journal import NAME

ROOT = Path(__file__).resolve().parents[2]
signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # which a background job of a shell ignores, and what it starts
MODEL = ROOT / "zoo" / "anchor_x4_int8.tflite"
SCALE = 4
COLOURS = Image.merge("RGB", [Image.linear_gradient("L").rotate(90 * k).resize((40, 28)) for k in range(3)])
BLOCKER = """
import sys
blocked = ("torch", "rich", "jsonargparse", "skimage", "yaml", "docstring_parser", "matplotlib", "jinja2", "onnxruntime")
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"blocked: {name}", name=name)
sys.meta_path.insert(0, Block())
"""


def save(path: Path, picture: Image.Image = COLOURS, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return path


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    for name in ("a.png", "deep/b.jpg", "deep/er/c.webp"):
        save(folder / name)
    return folder


@pytest.fixture
def upscale(command, photos) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    return lambda *arguments, **environment: command(
        "runtime.upscale", photos, "--model", MODEL, *map(str, arguments), **environment
    )


def files(folder: Path) -> dict[str, bytes]:
    """Contents by path, of all but the journal."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != NAME
    }


def unreadable(folder: Path) -> set[str]:
    """Writes files that promise a picture and are none; their names."""
    frames = [COLOURS, COLOURS.rotate(180)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    (folder / "empty.png").touch()
    (folder / "text.JPG").write_text("no picture")
    (folder / "bomb.png").write_bytes(save(folder / "big.png", Image.new("1", (2000, 1000))).read_bytes())
    (folder / "big.png").unlink()
    whole = save(folder / "cut.png", Image.effect_noise((60, 60), 90)).read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "broken.tif").symlink_to(folder / "nothing")
    return {"moving.gif", "empty.png", "text.JPG", "bomb.png", "cut.png", "broken.tif"}


def test_every_kind_is_done_or_named(photos, upscale):
    alpha = Image.radial_gradient("L").resize(COLOURS.size)
    save(photos / "grey.jpg", COLOURS.convert("L"))
    save(photos / "palette.gif", COLOURS.quantize(8), transparency=0)
    save(photos / "bits.bmp", COLOURS.convert("1"))
    save(photos / "clear.png", Image.merge("RGBA", [*COLOURS.split(), alpha]))
    save(photos / "deep16.png", Image.fromarray(np.asarray(COLOURS.convert("L")).astype(np.uint16) * 257))
    save(photos / "print.jpg", COLOURS.convert("CMYK"))
    save(photos / "dot.png", Image.new("RGB", (1, 1)))
    bad = unreadable(photos)
    (photos / "notes.txt").write_text("x")
    save(photos / ".hidden.png")
    (photos / "loop").symlink_to(photos)
    run = upscale("--max-megapixels", 1, "--jobs", 2)
    assert run.returncode == 1, run.stderr
    found = {}
    out = photos.with_name("photos_x4")
    for name in files(out):
        with Image.open(out / name) as picture:
            picture.load()
            found[name] = picture.mode
            assert picture.size in {(SCALE * 40, SCALE * 28), (SCALE, SCALE)}
    assert found == {
        "a.png": "RGB", "deep/b.jpg": "RGB", "deep/er/c.webp": "RGB", "grey.jpg": "L", "palette.png": "RGBA", "bits.png": "L",
        "clear.png": "RGBA", "deep16.png": "L", "print.jpg": "RGB", "dot.png": "RGB",
    }  # fmt: skip
    named = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert len(named) == len(bad)
    assert all(sum(f"/{name}" in line for line in named) == 1 for name in bad)
    assert "6 could not be upscaled" in run.stderr
    assert "wrote 10 photographs" in run.stdout
    assert "passed over 1 other files, 1 hidden, 1 links to folders" in run.stdout
    assert "note on 1 photograph: 16 bits per channel rounded to 8" in run.stdout


def test_what_is_done_is_skipped_until_something_changes(photos, upscale, tmp_path):
    assert upscale("--out", tmp_path / "out").returncode == 0
    first = files(tmp_path / "out")
    again = upscale("--out", tmp_path / "out")
    assert "wrote nothing" in again.stdout
    assert "skipped 3 photographs" in again.stdout
    save(photos / "a.png", COLOURS.rotate(180))
    (tmp_path / "out" / "deep" / "b.jpg").unlink()
    changed = upscale("--out", tmp_path / "out")
    assert "wrote 2 photographs" in changed.stdout
    assert "skipped 1 photograph " in changed.stdout
    found = files(tmp_path / "out")
    assert {name for name in first if found[name] != first[name]} == {"a.png"}
    assert "wrote 3 photographs" in upscale("--out", tmp_path / "out", "--scale", 2).stdout
    with Image.open(tmp_path / "out" / "a.png") as picture:
        assert picture.size == (80, 56)


def test_nothing_of_the_user_is_overwritten(photos, upscale, tmp_path):
    out = photos / "results"
    out.mkdir()
    os.link(photos / "a.png", out / "a.png")
    (out / "deep").mkdir()
    (out / "deep" / "b.jpg").write_text("mine")
    before = files(photos)
    run = upscale("--out", out)
    assert run.returncode == 1
    assert "would overwrite one" in run.stderr
    assert "not this command's" in run.stderr
    after = files(photos)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"results/deep/er/c.webp"}
    (tmp_path / "link").symlink_to(photos)
    for place in (photos, tmp_path, tmp_path / "link", photos / "a.png"):
        refused = upscale("--out", place)
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1
    assert files(photos) == after


def test_what_cannot_be_reached_is_named(photos, upscale):
    """A folder and a file whose paths are longer than the system takes."""
    name, path, handle = "d" * 200, str(photos), os.open(photos, os.O_RDONLY)
    while len(path) + 1 + len(name) < os.pathconf("/", "PC_PATH_MAX"):
        os.mkdir(name, dir_fd=handle)
        path, above, handle = f"{path}/{name}", handle, os.open(name, os.O_RDONLY, dir_fd=handle)
        os.close(above)
    os.mkdir(name, dir_fd=handle)
    os.close(os.open(f"{name}.png", os.O_CREAT | os.O_WRONLY, dir_fd=handle))
    os.close(handle)
    run = upscale()
    assert run.returncode == 1
    assert run.stderr.count("error: expected a path that can be read, found") == 2, run.stderr
    assert "2 could not be upscaled" in run.stderr
    assert "wrote 3 photographs" in run.stdout


def test_what_was_put_in_the_place_of_a_failure_stays(photos, upscale, tmp_path):
    whole = save(photos / "cut.png", Image.effect_noise((60, 60), 90)).read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    assert upscale("--out", tmp_path / "out").returncode == 1
    (tmp_path / "out" / "cut.png").write_text("mine")
    (photos / "cut.png").write_bytes(whole)
    run = upscale("--out", tmp_path / "out")
    assert run.returncode == 1
    assert "not this command's" in run.stderr
    assert (tmp_path / "out" / "cut.png").read_text() == "mine"


def test_places_that_cannot_be(photos, upscale, tmp_path):
    (tmp_path / "circle").symlink_to("circle")
    for place in (
        tmp_path / "circle",
        tmp_path / ("x" * 300),
        "/proc/none" if Path("/proc/self").exists() else "/dev/null/x",
    ):
        run = upscale("--out", place)
        assert (run.returncode, run.stderr.count("\n")) == (2, 1), run.stderr
        assert "expected a" in run.stderr


def test_results_of_one_name(photos, upscale, tmp_path):
    save(photos / "a.jpg", COLOURS.rotate(180))
    assert upscale("--out", tmp_path / "out", "--format", "png").returncode == 0
    assert files(tmp_path / "out").keys() == {"a.jpg.png", "a.png.png", "deep/b.png", "deep/er/c.png"}


def test_a_folder_without_photographs_and_a_model_that_is_none(photos, upscale, command, tmp_path):
    run = command("runtime.upscale", photos, "--model", photos / "a.png")
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    (tmp_path / "empty").mkdir()
    run = command("runtime.upscale", tmp_path / "empty", "--model", MODEL)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert "expected photographs, found none" in run.stderr
    assert upscale("--jobs", 0).returncode == 2
    assert upscale("--tile", 5).returncode == 2
    assert not photos.with_name("photos_x4").exists()


def test_a_full_disk_ends_the_run(photos, upscale, small_disk):
    save(photos / "b.png", Image.effect_noise((300, 300), 90))
    run = upscale("--out", small_disk / "out")
    assert run.returncode == 2
    assert "full disk" in run.stderr
    assert files(small_disk / "out").keys() == {"a.png"}


def test_needs_only_numpy_pillow_and_the_engine(photos, upscale, tmp_path):
    """In the processes that it starts, too."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    run = upscale("--out", tmp_path / "out", "--jobs", 2, "--memory", "32MB", PYTHONPATH=str(tmp_path))
    assert run.returncode == 0, run.stderr
    assert len(files(tmp_path / "out")) == 3


def _started(photos: Path, out: Path, jobs: int = 1) -> "subprocess.Popen[str]":
    """A run that has begun to write slow.png, which takes it seconds longer than any test needs to end it."""
    save(photos / "slow.png", Image.linear_gradient("L").resize((6000, 4000)), compress_level=1)
    command = [sys.executable, "-m", "runtime.upscale", str(photos), "--model", str(MODEL), "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--jobs", str(jobs)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    _wait(lambda: any(out.glob(".slow.png.*")), "slow.png is begun")
    return process


def _wait(until: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end, f"waited too long until {what}"
        time.sleep(0.01)


def _ended(process: int) -> bool:
    """Also where nobody has asked yet how it ended."""
    command = ["ps", "-o", "stat=", "-p", str(process)]
    state = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return not state or state.startswith("Z")


def _workers(parent: int) -> list[int]:
    found = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True, check=False
    )
    return [int(line.split()[0]) for line in found.stdout.splitlines() if "spawn_main" in line]


needs_ps = pytest.mark.skipif(shutil.which("ps") is None, reason="ps, which finds the processes of a run, is not here")


@needs_ps
def test_a_crash_of_native_code_costs_one_photograph(photos, tmp_path):
    save(photos / "z.png")
    process = _started(photos, tmp_path / "out")
    (worker,) = _workers(process.pid)
    os.kill(worker, signal.SIGSEGV)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "slow.png" in error
    assert "SIGSEGV" in error
    assert "1 could not be upscaled" in error
    assert files(tmp_path / "out").keys() == {"a.png", "deep/b.jpg", "deep/er/c.webp", "z.png"}


@needs_ps
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_processes_end_with_the_first_one(photos, tmp_path, ending):
    process = _started(photos, tmp_path / "out", jobs=2)
    workers = _workers(process.pid)
    assert len(workers) == 2
    os.kill(process.pid, ending)
    _, error = process.communicate(timeout=60)
    _wait(lambda: all(map(_ended, workers)), "all processes have ended")
    if ending == signal.SIGINT:
        assert process.returncode == 130
        assert error.splitlines()[-1].startswith("error: interrupted")
        assert not [name for name in files(tmp_path / "out") if ".part." in name]


def test_killed_at_random_it_comes_out_the_same(photos, tmp_path):
    found = kill_at_random(photos, tmp_path, MODEL, kills=5, jobs=2, seed=1)
    assert found.kills == 5
    assert not found.faults
