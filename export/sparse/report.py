"""What storing zeros sparse gains: both forms of a file are written, measured, and set side by side."""

import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from compress.checkpoint import Student
from compress.errors import BadInput
from export.exporting import ExportedFile
from export.sparse.masked import density
from export.sparse.speed import speed_up
from export.sparse.tflite import FLOAT16_WARNING

Write = Callable[..., ExportedFile]
"""Writes one form of a file: (path, sparse=bool)."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A masked student's file in both forms.

    Attributes:
        file: its name.
        pattern: of the masks.
        density: share of all its weights that are not zero, in [0, 1].
        dense, sparse: its bytes in either form; the second None where it could not be written.
        dense_zip, sparse_zip: the same in a zip (level 9), which is how apps travel.
        speed_up: of the sparse file over the dense one; see `export.sparse.speed`.
        note: what a user should know, or empty.
    """

    file: str
    pattern: str
    density: float
    dense: int
    sparse: int | None
    dense_zip: int
    sparse_zip: int | None
    speed_up: str
    note: str


def compare(student: Student, written: ExportedFile, write: Write, *, sparse: bool) -> Comparison:
    """Writes the other form of a file into a temporary folder and compares the two.

    Args:
        student: with masks.
        written: the file.
        write: writes that file in either form.
        sparse: the form of `written`.
    """
    assert student.sparsity is not None, "its callers ask"
    with tempfile.TemporaryDirectory() as folder:
        reason = ""
        dense, found = (None, written.path) if sparse else (written.path, None)
        try:
            other = write(Path(folder) / written.path.name, sparse=not sparse).path
            dense, found = (other, found) if sparse else (dense, other)
        except BadInput as error:
            if sparse:
                raise
            reason = str(error)
        assert dense is not None
        sizes, sparse_sizes = _sizes(dense), _sizes(found) if found else (None, None)
        gained = speed_up(dense, found) if found else "-"
    return Comparison(
        file=written.path.name,
        pattern=student.sparsity.pattern,
        density=density(student, written.metadata.precision),
        dense=sizes[0],
        sparse=sparse_sizes[0],
        dense_zip=sizes[1],
        sparse_zip=sparse_sizes[1],
        speed_up=gained,
        note=reason or _note(written, sizes[0], sparse_sizes[0]),
    )


def print_comparisons(comparisons: Sequence[Comparison]) -> None:
    """A table of one line per file, and what is to be said of them."""
    columns = ("file", "density", "dense", "sparse", "dense, zip", "sparse, zip", "speed-up")
    table = Table(
        *columns, title=f"{comparisons[0].pattern} masks: kB of each file with its weights stored dense and sparse"
    )
    for one in comparisons:
        sizes = (one.dense, one.sparse, one.dense_zip, one.sparse_zip)
        kilobytes = ("-" if size is None else f"{size / 1000:.1f}" for size in sizes)
        table.add_row(one.file, f"{one.density:.1%}", *kilobytes, one.speed_up)
    Console(width=None if sys.stdout.isatty() else 110).print(table)
    for note in dict.fromkeys(one.note for one in comparisons if one.note):
        print(f"{', '.join(one.file for one in comparisons if one.note == note)}: {note}")


def _sizes(path: Path) -> tuple[int, int]:
    """Bytes of a file or folder, and in a zip."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    with tempfile.TemporaryFile() as packed:
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for file in files:
                archive.write(file, file.relative_to(path.parent))
        return sum(file.stat().st_size for file in files), packed.tell()


def _note(written: ExportedFile, dense: int, sparse: int | None) -> str:
    notes = []
    if sparse is not None and sparse >= dense:
        notes.append("larger when sparse, for the positions take more than the zeros did")
    if sparse is not None and (written.path.suffix, written.metadata.precision) == (".tflite", "float16"):
        notes.append(FLOAT16_WARNING)
    return "; ".join(notes)
