"""`python -m export student.pt`: a student in every format and precision, one folder with all that its users need."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from compress.card import card
from compress.checkpoint import Student, load_student, save_student
from compress.cli import command_line
from compress.data.sources import skimage_photographs
from compress.errors import BadInput
from compress.files import sha256
from compress.progress import progress
from compress.quantization.calibration import calibration_crops
from compress.quantization.ptq import quantize_student
from export import coreml, executorch, ncnn, onnx, tflite
from export.exporting import (
    QUANTIZED,
    ExportedFile,
    check_masks,
    has_masks,
    parse_sizes,
    reference_network,
    refuse_integers,
    sizes_of,
)
from export.metadata import INTEGER, Precision, Sizes
from export.sparse.report import Comparison, compare, print_comparisons
from export.sparse.tflite import check_tensorflow

EVERY: tuple[Precision, ...] = ("float32", "float16", "int8", "int8-weights", "int8-dynamic")
GOLDEN_SIDE = 48  # LR pixels
MANIFEST, GOLDEN, CARD = "manifest.json", "golden.npz", "README.md"


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        suffix: of its name.
        precisions: that it has, and `reasons` why not for others.
        write: (student, path, precision, sizes=...), and `sparse=True` for the precisions `sparse`.
        command: the exporter's own.
        require: raises BadInput where its packages are not installed.
    """

    suffix: str
    precisions: tuple[Precision, ...]
    reasons: Mapping[str, str]
    write: Callable[..., ExportedFile]
    command: Callable[..., None]
    sparse: tuple[Precision, ...] = ()
    require: Callable[[], None] = lambda: None

    @property
    def installed(self) -> bool:
        try:
            self.require()
        except BadInput:
            return False
        return True


FORMATS = {
    "tflite": Format(".tflite", tflite.KNOWN, tflite.REASONS, tflite.export_tflite, tflite.main, sparse=tflite.SPARSE),
    "onnx": Format(".onnx", onnx.KNOWN, onnx.REASONS, onnx.export_onnx, onnx.main, sparse=onnx.KNOWN),
    "coreml": Format(
        ".mlpackage", coreml.KNOWN, coreml.REASONS, coreml.export_coreml, coreml.main, sparse=coreml.KNOWN
    ),
    "executorch": Format(
        ".pte",
        executorch.KNOWN,
        executorch.REASONS,
        executorch.export_executorch,
        executorch.main,
        require=executorch.require_executorch,
    ),
    "ncnn": Format(".param", ncnn.KNOWN, ncnn.REASONS, ncnn.export_ncnn, ncnn.main, require=ncnn.require_ncnn),
}


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
        lines.append(f"| {row['file']} | {row['precision']} | {row['bytes'] / 1000:.1f} | {_images(images)} |")
    return "\n".join(lines) + "\n"


def _images(images: dict[str, str]) -> str:
    return f"{images['input']} in, {images['output']} out, {images['layout']}"


def main(
    student: Path,
    *,
    out: Path | None = None,
    formats: Sequence[str] = (),
    precisions: Sequence[Precision] = EVERY,
    size: str | None = None,
    calibration: str | None = None,
    sparse: bool = False,
    force: bool = False,
) -> None:
    """Exports a student to all formats and precisions, into one folder with manifest, golden vectors and model card.

    Args:
        student: student.pt, float or int8; a float one gives files of integers where --calibration is given.
        out: the folder; left out, the student's name with _export, beside it.
        formats: out of tflite, onnx, coreml, executorch and ncnn; left out, those that are installed.
        precisions: out of float32, float16, int8, int8-weights and int8-dynamic; every format has most of them.
        size: 'any', or sizes of the LR image as HEIGHTxWIDTH, several with commas between them; left out, any where the
            network allows it, else 64x64.
        calibration: folder of photographs, or 'skimage', to quantize a float student with.
        sparse: store the zeros of a student with 2:4, block or other masks sparse, in every format that can.
        force: replace an existing folder.
    """
    formats = formats or [name for name, one in FORMATS.items() if one.installed]
    if unknown := [name for name in formats if name not in FORMATS]:
        raise BadInput(f"expected formats out of {', '.join(FORMATS)}, found {unknown[0]!r}: correct the name.")
    for name in formats:
        FORMATS[name].require()
    given = load_student(student)
    sizes = sizes_of(given, parse_sizes(size) if size else None)
    if sparse:
        check_masks(given)
        if "tflite" in formats:
            check_tensorflow()
    target = out or student.with_name(f"{student.stem}_export")
    if target.exists() and not force:
        raise BadInput(
            f"expected a new folder, found that {target} exists: give another --out, or --force to replace it."
        )
    if target.exists() and not (target / MANIFEST).is_file():
        raise BadInput(
            f"expected a folder that this command wrote, found other things in {target}: give another --out."
        )
    with tempfile.TemporaryDirectory() as scratch:
        integers = student if given.quantization else None
        if not given.has_graph:
            for precision in precisions if tuple(precisions) != EVERY else ():  # asked for by name
                refuse_integers(given, precision)
            precisions = [one for one in precisions if one not in QUANTIZED]
        elif integers is None and calibration:
            integers = Path(scratch) / "student_int8.pt"
            save_student(quantize_student(given, calibration_crops(calibration, given.scale)), integers)
        chosen: list[Precision] = [one for one in precisions if integers or one not in QUANTIZED]
        if given.quantization:  # what its integers are, whichever that is
            chosen = [given.quantization.precision if one == "int8" else one for one in chosen]
        if not chosen:
            raise BadInput(
                f"expected an int8 student or photographs to calibrate on, found neither for {', '.join(precisions)}: add "
                "--calibration FOLDER."
            )
        total = sum(one in FORMATS[kind].precisions for kind in formats for one in chosen)
        done = 0
        with progress("export", total) as update:

            def count(name: str) -> None:
                nonlocal done
                done += 1
                update(done, name)

            rows = export_all(
                student, target, formats=formats, precisions=chosen, integer_student=integers, sizes=sizes,
                sparse=sparse,
                command=shlex.join(["python", "-m", "export", *sys.argv[1:]]), on_file=count,
            )  # fmt: skip
    table = Table("file", "precision", "kB", "operators", "images", title=str(target))
    for row in rows:
        table.add_row(
            row["file"], row["precision"], f"{row['bytes'] / 1000:.1f}", str(sum(row["operators"].values())),
            _images(row["images"]),
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 110).print(table)
    if compared := [row["sparsity"] for row in rows if "sparsity" in row]:
        print_comparisons([Comparison(**one) for one in compared])
    judge = "student_int8.pt" if integers else "student.pt"
    files = " ".join(str(target / row["file"]) for row in rows)
    print(f"check them: python -m runtime.parity {target / judge} {files}")
    if len(chosen) < len(precisions):
        print(
            "int8 was left out: give an int8 student, or --calibration FOLDER with photographs like those the app will see"
        )


if __name__ == "__main__":
    command_line(main)
