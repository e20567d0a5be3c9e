"""The runner alone, on this machine."""

import subprocess
import sys

import numpy as np
import pytest

from compress.errors import BadInput
from runtime.device.build import STAMP, Bundle, bundle_of
from runtime.device.toolchain import ABIS
from runtime.engines import open_model
from runtime.engines.base import from_pixels
from tests.runtime.device.conftest import FILES, SCALE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="namespaces and the runner's build are Linux's")


def runner(bundle: Bundle, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*bundle.command, *map(str, arguments)],
        cwd=bundle.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def call(bundle, tmp_path):
    """Calls the runner with a .tflite's bytes and options."""
    (tmp_path / "in").write_bytes(
        from_pixels(np.zeros((16, 24, 3), np.uint8), open_model(FILES["int8"]).metadata.input)
    )
    size = ["--height", 16, "--width", 24]

    def run(content: bytes, *options: object, target: str = "out") -> "subprocess.CompletedProcess[str]":
        (tmp_path / "model").write_bytes(content)
        return runner(bundle, tmp_path / "model", tmp_path / "in", f"{tmp_path}/{target}", *(options or size))

    return run


def test_runner_contains_damaged_files(call, tmp_path):
    whole, random = FILES["int8"].read_bytes(), np.random.default_rng(5)
    codes = set()
    for kind in range(60):
        content = bytearray(whole)
        place = int(random.integers(len(content)))
        if kind % 3 == 0:
            content = content[:place]
        elif kind % 3 == 1:
            content[place : place + 4] = b"\xff\xff\xff\x7f"
        else:
            for one in random.integers(len(content), size=40):
                content[one] ^= 1 << int(random.integers(8))
        (tmp_path / "out").unlink(missing_ok=True)
        run = call(bytes(content))
        codes.add(run.returncode)
        assert run.returncode in (0, 2), run
        assert (tmp_path / "out").exists() == (run.returncode == 0)
        if run.returncode:
            assert run.stderr.startswith("error: expected ")
            assert run.stderr.count("\n") == 1
    assert codes == {0, 2}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--height", 16, "--width", 25], "expected 1200 bytes of input, found fewer"),
        (["--height", 16, "--width", 23], "expected 1104 bytes of input, found more"),
        (["--height", 0, "--width", 24], "expected --height to be a whole number from 1 to 32768, found 0"),
        (["--height", 16, "--width", "24x"], "expected --width to be a whole number"),
        (["--height", 16, "--width"], "expected --width to be a whole number from 1 to 32768, found nothing"),
        (["--height", 16], "expected MODEL INPUT OUTPUT --height H --width W, found fewer"),
        (["--height", 16, "--width", 24, "--gpu"], "expected known options, found --gpu"),
    ],
)
def test_runner_refuses(call, options, sentence):
    run = call(FILES["int8"].read_bytes(), *options)
    assert run.returncode == 2
    assert sentence in run.stderr


def test_runner_writes_the_whole_output_or_none(call, tmp_path):
    run = call(FILES["int8"].read_bytes(), target="nowhere/out")
    assert run.returncode == 2
    assert "expected to write" in run.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "model"]
    assert call(FILES["int8"].read_bytes()).returncode == 0
    assert (tmp_path / "out").stat().st_size == 16 * 24 * 3 * SCALE**2
    longest = 4095  # bytes of a path that the kernel takes; no room for the temporary name
    run = call(FILES["int8"].read_bytes(), target="out".rjust(longest - len(f"{tmp_path}/"), "/"))
    assert run.returncode == 2
    assert "expected a path of at most 4090 bytes for the output, found a longer one" in run.stderr
    assert (tmp_path / "out").is_file()  # as it was


def test_runner_is_built_once_and_again_when_it_is_not_whole(bundle, tmp_path):
    built = bundle_of(bundle.abi, tmp_path / "new")
    when = (built.folder / STAMP).stat().st_mtime_ns
    assert bundle_of(bundle.abi, built.folder) == built
    assert (built.folder / STAMP).stat().st_mtime_ns == when
    (built.folder / "libLiteRt.so").unlink()
    again = bundle_of(bundle.abi, built.folder)
    assert again.files["libLiteRt.so"] == built.files["libLiteRt.so"]
    assert (again.folder / "libLiteRt.so").is_file()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").touch()
    with pytest.raises(BadInput, match="found other things"):
        bundle_of(bundle.abi, tmp_path / "mine")
    with pytest.raises(BadInput, match="expected a folder that takes new files, found /proc"):
        bundle_of(bundle.abi, "/proc/new")
    with pytest.raises(BadInput, match="expected an ABI out of"):
        bundle_of("riscv64")
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")) == ["mine", "new"]


@pytest.mark.parametrize("abi", list(ABIS.values()), ids=list(ABIS))
def test_bundle_needs_nothing_of_the_device(abi):
    try:
        folder = bundle_of(abi.name).folder
    except BadInput as error:
        pytest.skip(str(error))
    names = {path.name for path in folder.iterdir()} - {STAMP}
    assert {"pocketsr_run", "libLiteRt.so", abi.loader} <= names
    for name in names:
        assert int.from_bytes((folder / name).read_bytes()[18:20], "little") == abi.elf
        wanted = subprocess.run(
            ["readelf", "--dynamic", folder / name], capture_output=True, text=True, check=True
        ).stdout
        assert {line.split("[")[1].rstrip("]") for line in wanted.splitlines() if "(NEEDED)" in line} <= names
