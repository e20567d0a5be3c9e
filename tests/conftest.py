"""What several tests share."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch is imported: for tiny networks threads only wait on each other

ROOT = Path(__file__).resolve().parents[1]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of benchmark images and public weights beside the repository; tests skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("shared/data is not here")
    return folder


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Decoded images and labels go to a temporary folder, in subprocesses too, never to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("POCKETSR_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def command() -> Command:
    """Runs `python -m <arguments>` in the repository, as a user does, and returns what it printed and its exit code."""

    def run(*arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", *map(str, arguments)],
            cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three small photographs, 128x128, cut out of those that scikit-image installs."""
    from PIL import Image

    from compress.data.sources import skimage_photographs

    folder = tmp_path_factory.mktemp("photographs")
    sources = {path.stem: path for path in skimage_photographs("train")}
    for name, box in (("astronaut", (160, 60)), ("camera", (150, 60)), ("retina", (500, 500))):
        with Image.open(sources[name]) as image:
            left, top = box
            image.crop((left, top, left + 128, top + 128)).convert("RGB").save(folder / f"{name}.png")
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of 1000 KiB, which root can have in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=1000k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(options, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
