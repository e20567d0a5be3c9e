"""The gate's result read back from the JSON that `python -m runtime.parity --json` wrote."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.checkpoint import Student
from compress.errors import BadInput
from compress.files import parse_json
from runtime.parity.results import ParityReport


def read_parity(path: str | Path, student: Student, files: Sequence[Path], sets: Sequence[str]) -> ParityReport:
    """The report that was written to `path`.

    Args:
        student: whose files they are.
        files: that the result must be of.
        sets: names of the benchmark sets that it must be of.

    Raises:
        BadInput: something else in the file, or a result of another student, of other files or sets, or of files that
            have another size now.
    """
    path = Path(path)
    try:
        report = _built(ParityReport, parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(
            f"expected a result of `python -m runtime.parity --json`, found something else in {path} ({error}): write it again."
        ) from error
    if report.student != student.file_hash:
        raise BadInput(
            f"expected the gate's result for the student {str(student.file_hash)[:12]}, found one for "
            f"{report.student[:12]} in {path}: run the gate again."
        )
    given = {file.resolve() for file in files}
    results = (*report.files, *report.refused)
    found = {one.path.resolve() for one in results}
    if given != found:
        names = ", ".join(sorted({one.name for one in results}))
        raise BadInput(f"expected the gate's result for the files given, found one for {names} in {path}: name these.")
    for file in report.files:
        judged = [one.name for one in file.sets]
        if judged != list(sets):
            raise BadInput(
                f"expected the gate's result on {', '.join(sets)}, found one on {', '.join(judged)} in {path}: name the same "
                "sets with --sets or --images."
            )
        where = file.path
        size = sum(one.stat().st_size for one in ([where] if where.is_file() else where.rglob("*")) if one.is_file())
        if where.is_file() and size != file.file_bytes and where.suffix != ".param":
            raise BadInput(
                f"expected {where} as the gate saw it ({file.file_bytes} bytes), found {size} bytes: run the gate again."
            )
    return report


def _built(kind: Any, plain: Any) -> Any:
    """A value of a type, out of what JSON keeps of it; figures that are not finite were null."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        wanted = [one for one in dataclasses.fields(kind) if one.init]
        return kind(**{one.name: _built(hints[one.name], plain[one.name]) for one in wanted})
    if origin in (typing.Union, types.UnionType):
        if plain is None and type(None) in arguments:
            return None
        return _built(next(one for one in arguments if one is not type(None)), plain)
    if origin is tuple:
        kinds = arguments[:1] * len(plain) if arguments[-1] is Ellipsis else arguments
        return tuple(_built(one, value) for one, value in zip(kinds, plain, strict=True))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping) and arguments:
        return {key: _built(arguments[1], value) for key, value in plain.items()}
    if kind is float:
        return math.inf if plain is None else float(plain)
    return Path(plain) if kind is Path else plain
