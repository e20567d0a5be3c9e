"""One folder with all that a student's users need: files, golden vectors, manifest, model card."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from compress.card import card
from compress.checkpoint import Student, load_student
from compress.data.sources import skimage_photographs
from compress.errors import BadInput
from compress.files import sha256
from export.exporting import (
    QUANTIZED,
    ExportedFile,
    has_masks,
    reference_network,
    sizes_of,
)
from export.formats import FORMATS
from export.metadata import INTEGER, Precision, Sizes
from export.sparse.report import compare

GOLDEN_SIDE = 48  # LR pixels
MANIFEST, GOLDEN, CARD = "manifest.json", "golden.npz", "README.md"


def export_all(
    student: Path,
    out: Path,
    *,
    formats: Sequence[str],
    precisions: Sequence[Precision],
    integer_student: Path | None = None,
    sizes: Sizes | None = None,
    sparse: bool = False,
    command: str = "",
    on_file: Callable[[str], object] = lambda name: None,
) -> list[dict[str, Any]]:
    """Writes a folder: the files, the students they came from, golden vectors, a manifest and a model card.

    golden.npz holds `lr`, (48, 48, 3) uint8, and what the PyTorch reference makes of it in each precision:
    `sr_float32`, `sr_int8-weights` and `sr_int8-dynamic` as float32 in [0, 1], `sr_int8` as uint8, (s*48, s*48, 3).
    Files of one size: all of that size instead of 48x48.

    Args:
        student: student.pt for the float precisions.
        out: the folder; whole or not at all.
        formats: names in `FORMATS`.
        precisions: to write, in every format that has them.
        integer_student: student.pt for integers, int8; None leaves them out.
        sizes: of LR images; None is any where the network allows it, else 64x64.
        sparse: store the weights of a student with masks sparse, in every format that can. Without it, what that would
            gain is measured and said all the same, in the row of each file.
        command: that was given, for the manifest.
        on_file: called with the name of every finished file.

    Returns:
        The rows of the manifest's `files`.

    Raises:
        BadInput: as the exporters; the converter's log is then kept as OUT.log.
    """
    plain, integers = load_student(student), load_student(integer_student) if integer_student else None
    students = {one: integers if one in QUANTIZED else plain for one in precisions}
    with _folder(out) as folder:
        rows = []
        for kind in formats:
            for precision in FORMATS[kind].precisions:
                source = students.get(precision)
                if source is None:
                    continue
                path = folder / f"student_{precision}{FORMATS[kind].suffix}"
                write = functools.partial(FORMATS[kind].write, source, precision=precision, sizes=sizes)
                if precision in FORMATS[kind].sparse and has_masks(source):
                    file = write(path, sparse=sparse)
                    compared = dataclasses.asdict(compare(source, file, write, sparse=sparse))
                    rows.append({**_row(kind, file), "sparse": sparse, "sparsity": compared})
                else:
                    rows.append(_row(kind, write(path)))
                on_file(path.name)
        for log in folder.glob("*.log"):
            log.unlink()
        for path, one in ((student, plain), (integer_student, integers)):
            if path and one:
                shutil.copyfile(path, folder / ("student_int8.pt" if one.quantization else "student.pt"))
        known = sizes_of(plain, sizes)
        side = (GOLDEN_SIDE, GOLDEN_SIDE) if known == "any" else (known[0][0], known[0][1])
        _write_golden(folder / GOLDEN, {one: source for one, source in students.items() if source}, side)
        (folder / CARD).write_text(card(integers or plain, out.name) + "\n" + _files_table(rows), encoding="utf-8")
        manifest = {
            "command": command,
            "architecture": plain.architecture,
            "scale": plain.scale,
            "students": {path.name: sha256(path) for path in sorted(folder.glob("*.pt"))},
            "golden": {"file": GOLDEN, "sha256": sha256(folder / GOLDEN)},
            "versions": {name: version for row in rows for name, version in row["producer"].items()},
            "files": rows,
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return rows


@contextlib.contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """A new folder that takes the place of `out` when the block ends well; its logs outlive a failure as OUT.log."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".part"))
    try:
        yield part
        part.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        part.rename(out)
    except BadInput as error:
        logs = sorted(part.glob("*.log"))
        if not logs:
            raise
        kept = out.with_name(f"{out.name}.log")
        kept.write_text("".join(log.read_text(encoding="utf-8") for log in logs), encoding="utf-8")
        text = str(error)
        for log in logs:
            text = text.replace(str(log), str(kept))
        raise BadInput(text) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _row(kind: str, file: ExportedFile) -> dict[str, Any]:
    path, metadata = file.path, file.metadata
    return {
        "file": path.name,
        "format": kind,
        "precision": metadata.precision,
        "bytes": file.file_bytes,
        "sha256": sha256(path) if path.is_file() else folder_sha256(path),
        "operators": dict(file.operators),
        "images": {"input": metadata.input.dtype, "output": metadata.output.dtype, "layout": metadata.input.layout},
        "producer": metadata.producer,
        **({"beside": {one.name: sha256(one) for one in file.files[1:]}} if path.is_file() and file.files[1:] else {}),
    }


def folder_sha256(folder: Path) -> str:
    """SHA-256 over a folder: of lines `SHA-256 of the file, two spaces, its path in the folder`, as sha256sum prints them,
    sorted by path."""
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    lines = "".join(f"{sha256(folder / name)}  {name}\n" for name in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def golden_input(height: int = GOLDEN_SIDE, width: int = GOLDEN_SIDE) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 of a photograph that scikit-image installs."""
    from PIL import Image

    path = next(path for path in skimage_photographs("train") if path.stem == "astronaut")
    with Image.open(path) as picture:
        side = 4 * GOLDEN_SIDE
        return np.asarray(picture.convert("RGB").crop((200, 40, 200 + side, 40 + side)).resize((width, height)))


def _write_golden(path: Path, students: dict[Precision, Student], size: tuple[int, int]) -> None:
    lr = golden_input(*size)
    x = torch.tensor(lr).permute(2, 0, 1)[None].float() / 255
    arrays: dict[str, NDArray[Any]] = {"lr": lr}
    for precision, student in students.items():
        network = reference_network(student, precision)
        with torch.no_grad():
            sr = network.eval()(x)[0].permute(1, 2, 0).numpy()
        if precision != "float16":  # the same values as float32, to fewer digits
            arrays[f"sr_{precision}"] = np.rint(sr * 255).astype(np.uint8) if precision in INTEGER else sr
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    path.write_bytes(buffer.getvalue())


def _files_table(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| file | precision | kB | images |", "|---|---|---|---|"]
    for row in rows:
        images = row["images"]
        lines.append(f"| {row['file']} | {row['precision']} | {row['bytes'] / 1000:.1f} | {images_text(images)} |")
    return "\n".join(lines) + "\n"


def images_text(images: dict[str, str]) -> str:
    """Types and layout of a file's images, in words."""
    return f"{images['input']} in, {images['output']} out, {images['layout']}"
