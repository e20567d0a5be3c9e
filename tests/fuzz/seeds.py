"""Whole files of every kind that is read, made once: what the damage starts from."""

import dataclasses
import io
import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms

from compress.checkpoint import Student, load_student, save_student
from compress.data.benchmarks import open_benchmark
from compress.models import build
from compress.quantization.calibration import calibration_crops
from compress.quantization.ptq import quantize_student
from export.coreml import export_coreml
from export.executorch import export_executorch
from export.ncnn import export_ncnn
from export.onnx import export_onnx
from export.tflite import export_tflite
from runtime.parity.gate import check
from runtime.upscale.journal import NAME, Journal, Seen

SCALE, SIDE = 2, 24
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Seed:
    """A whole file, or the files that make up one model: `main` is what a reader is given."""

    main: Path
    parts: tuple[Path, ...]

    @property
    def root(self) -> Path:
        return self.main.parent

    @classmethod
    def of(cls, main: Path) -> "Seed":
        """One file, a folder, or a .param with what lies beside it."""
        if main.is_dir():
            return cls(main, tuple(sorted(path for path in main.rglob("*") if path.is_file())))
        if main.suffix == ".param":
            return cls(main, (main, main.with_suffix(".bin"), main.with_suffix(".json")))
        return cls(main, (main,))


def make_seeds(folder: Path) -> None:
    """Fills `folder` with students, models, images, recipes and JSON files."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    student = Student.of(build("anchor", {"scale": SCALE, "channels": 8, "blocks": 1}))
    save_student(student, folder / "float.pt")
    student = load_student(folder / "float.pt")
    save_student(quantize_student(student, calibration_crops("skimage", SCALE, count=16)), folder / "int8.pt")
    integer = load_student(folder / "int8.pt")
    for name, one in (("float32", student), ("int8", integer)):
        export_tflite(one, folder / f"{name}.tflite", name)
        export_onnx(one, folder / f"{name}.onnx", name)
        export_coreml(one, folder / f"{name}.mlpackage", name)
        export_executorch(one, folder / f"{name}.pte", name)
    export_ncnn(student, folder / "float32.param", "float32")
    _images(folder)
    for name in ("demo", "quick", "poster"):
        (folder / f"{name}.yaml").write_bytes((ROOT / "recipes" / f"{name}.yaml").read_bytes())
    (folder / "limits.yaml").write_text(
        "loss: 0.05\nprecisions:\n  int8: {int8_lsb: 1}\nengines:\n  litert: {peak_mib: 32}\n"
    )
    (folder / "parity.json").write_text(_judged(integer, folder / "int8.tflite"))
    _journal(folder)
    lr = np.zeros((SIDE, SIDE, 3), np.uint8)
    np.savez(folder / "golden.npz", lr=lr, sr_int8=np.zeros((SCALE * SIDE, SCALE * SIDE, 3), np.uint8))
    sizes = {"architecture": "edsr", "options": {"scale": 2, "channels": [8, 8, 8], "blocks": 1}}
    (folder / "sizes.json").write_text(json.dumps(sizes))


def _journal(folder: Path) -> None:
    """Of two results, one of which was only begun."""
    results = folder / "results"
    results.mkdir()
    journal = Journal(results)
    journal.begin("a.png", "a.jpg", "made")
    (results / "a.png").write_bytes(b"a result")
    journal.finish("a.png", "a.jpg", "made", Seen.of(folder / "limits.yaml"))
    journal.begin("b.png", "b.jpg", "made")
    (folder / "journal.jsonl").write_bytes((results / NAME).read_bytes())


def _judged(student: Student, file: Path) -> str:
    """The gate's result."""
    photographs = open_benchmark("skimage", SCALE)
    one = dataclasses.replace(photographs, pairs=photographs.pairs[:1])
    return check(student, [file], [one], runs=1, memory=False).to_json()


def _images(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 4), np.uint8)
    colour, alpha = Image.fromarray(pixels[..., :3]), Image.fromarray(pixels)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = colour.getexif()
    exif[0x0112] = 6
    for name, image in (
        ("rgb.png", colour),
        ("rgba.png", alpha),
        ("palette.png", colour.quantize(16)),
        ("deep.png", Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)),
        ("photo.jpg", colour),
        ("photo.webp", alpha),
        ("photo.tiff", colour),
        ("photo.bmp", colour),
        ("photo.gif", colour.quantize(8)),
    ):
        extra = {"icc_profile": profile, "exif": exif} if name.startswith("photo.jpg") else {}
        buffer = io.BytesIO()
        image.save(buffer, {"jpg": "JPEG"}.get(Path(name).suffix[1:], Path(name).suffix[1:]), **extra)
        (folder / name).write_bytes(buffer.getvalue())


def random_of(*parts: object) -> random.Random:
    """A generator that is the same for the same parts, in every process."""
    return random.Random(repr(parts))
