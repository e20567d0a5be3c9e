"""What reads files from elsewhere: every reader with its seeds and the damage that suits them."""

import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.fuzz import hostile
from tests.fuzz.hostile import Files
from tests.fuzz.mutations import BYTES, TEXT, damaged
from tests.fuzz.rebuilt import reassembled, rechecked, refilled, rewritten, rezipped
from tests.fuzz.seeds import Seed

PICTURES = (
    "rgb.png",
    "rgba.png",
    "palette.png",
    "deep.png",
    *(f"photo.{kind}" for kind in ("jpg", "webp", "tiff", "bmp", "gif")),
)
SEEDS = Path(sys.argv[2] if len(sys.argv) > 2 else "seeds")
"""Whole files beside the spoilt one, where a reader takes several; a worker's second argument."""
LR = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A reader.

    Attributes:
        seeds: names of whole files.
        read: what is held to the rules; gets a path.
        damage: how one file is spoilt.
        tolerant: it takes of a damaged file what is whole, and refuses none.
        native: the engine's own code reads the file, and may crash where commands contain it.
        hostile: what makes files made by hand, by name; code in them leaves the file it is given.
    """

    seeds: tuple[str, ...]
    read: Callable[[Path], object]
    damage: Callable[[bytes, random.Random], bytes]
    native: bool = False
    tolerant: bool = False
    hostile: Callable[[Path], Files] = lambda canary: {}


def _run(path: Path) -> object:
    from runtime.engines import open_model

    return open_model(path).upscale(LR)


def _student(path: Path) -> object:
    from compress.checkpoint import load_student

    return load_student(path)


def _audit(path: Path) -> object:
    from export.audit import audit_file

    return audit_file(path)


def _image(path: Path) -> object:
    from runtime.upscale.photograph import read_photograph

    return read_photograph(path).rgb


def _recipe(path: Path) -> object:
    from compress.recipe import read_recipe

    return read_recipe(path)


def _pipeline(path: Path) -> object:
    from compress.pipeline.recipe import read_pipeline

    return read_pipeline(path)


def _sizes(path: Path) -> object:
    from compress.recipe import ModelSpec
    from compress.train import model_options

    return model_options(ModelSpec(architecture="edsr", sizes=path))


def _metadata(path: Path) -> object:
    from export.metadata import read_ncnn

    return read_ncnn(path)


def _limits(path: Path) -> object:
    from runtime.parity.limits import read_policy

    return read_policy(path)


def _parity(path: Path) -> object:
    from compress.checkpoint import load_student
    from runtime.report.saved import read_parity

    return read_parity(path, load_student(SEEDS / "int8.pt"), [SEEDS / "int8.tflite"], ["skimage"]).to_json()


def _plan(path: Path) -> object:
    from runtime.planner import largest_tile, predict

    return predict(path, *LR.shape[:2]), largest_tile(path, 2**26)


def _journal(path: Path) -> object:
    from runtime.upscale.journal import NAME, Journal

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / NAME).write_bytes(path.read_bytes())
        journal = Journal(Path(folder))
        return journal.is_done("a.png", "a.jpg", path, "made"), journal.may_write("a.png")


def _golden(path: Path) -> object:
    from export.metadata import read_tflite
    from runtime.device.golden import read_golden

    metadata = read_tflite(SEEDS / "int8.tflite")
    assert metadata
    return read_golden(path.parent, SEEDS / "int8.tflite", metadata)


def _damaged(data: bytes, chance: random.Random) -> bytes:
    return damaged(data, chance, BYTES)


def _reworded(data: bytes, chance: random.Random) -> bytes:
    return damaged(data, chance, TEXT)


def _checkpoint(data: bytes, chance: random.Random) -> bytes:
    return chance.choice((_damaged, rezipped, refilled, refilled))(data, chance)


def _flatbuffer(data: bytes, chance: random.Random) -> bytes:
    return chance.choice((_damaged, reassembled))(data, chance)


def _protobuf(data: bytes, chance: random.Random) -> bytes:
    return chance.choice((_damaged, rewritten))(data, chance)


def _graph(data: bytes, chance: random.Random) -> bytes:
    return (_flatbuffer if data[4:8] == b"TFL3" else _protobuf)(data, chance)


def _archive(data: bytes, chance: random.Random) -> bytes:
    return chance.choice((_damaged, rezipped))(data, chance)


def _picture(data: bytes, chance: random.Random) -> bytes:
    return chance.choice((_damaged, rechecked) if data.startswith(b"\x89PNG") else (_damaged,))(data, chance)


TARGETS: dict[str, Target] = {
    "student": Target(
        seeds=("float.pt", "int8.pt"), read=_student, damage=_checkpoint, hostile=hostile.checkpoints
    ),
    "tflite": Target(seeds=("float32.tflite", "int8.tflite"), read=_run, damage=_flatbuffer, native=True),
    "onnx": Target(
        seeds=("float32.onnx", "int8.onnx"), read=_run, damage=_protobuf, native=True, hostile=hostile.onnx_files
    ),
    "mlpackage": Target(seeds=("float32.mlpackage", "int8.mlpackage"), read=_run, damage=_damaged, native=True),
    "pte": Target(seeds=("float32.pte", "int8.pte"), read=_run, damage=_damaged, native=True),
    "ncnn": Target(seeds=("float32.param",), read=_run, damage=_reworded, native=True),
    "audit": Target(
        seeds=("int8.tflite", "int8.onnx", "int8.mlpackage"), read=_audit, damage=_damaged, hostile=hostile.onnx_files
    ),
    "image": Target(
        seeds=PICTURES,
        read=_image, damage=_picture, hostile=hostile.images,
    ),
    "recipe": Target(seeds=("demo.yaml", "quick.yaml"), read=_recipe, damage=_reworded, hostile=hostile.yaml_texts),
    "pipeline": Target(seeds=("poster.yaml",), read=_pipeline, damage=_reworded, hostile=hostile.yaml_texts),
    "limits": Target(seeds=("limits.yaml",), read=_limits, damage=_reworded, hostile=hostile.yaml_texts),
    "parity": Target(seeds=("parity.json",), read=_parity, damage=_reworded, hostile=hostile.json_texts),
    "journal": Target(seeds=("journal.jsonl",), read=_journal, damage=_reworded, tolerant=True, hostile=hostile.json_texts),
    "golden": Target(seeds=("golden.npz",), read=_golden, damage=_archive),
    "planner": Target(seeds=("int8.tflite", "float32.tflite", "int8.onnx"), read=_plan, damage=_graph),
    "sizes": Target(seeds=("sizes.json",), read=_sizes, damage=_reworded, hostile=hostile.json_texts),
}  # fmt: skip


def place(seed: Seed, target: Target, into: Path, chance: random.Random) -> Path:
    """Copies a seed into an empty folder with one of its files spoilt, and returns what the reader is given."""
    victim = chance.choice(seed.parts)
    for part in seed.parts:
        copy = into / part.relative_to(seed.root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        content = part.read_bytes()
        copy.write_bytes(target.damage(content, chance) if part == victim else content)
    return into / seed.main.name
