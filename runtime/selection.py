"""Which engines run which files."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.errors import BadInput
from runtime.engines import BY_SUFFIX, opener_of

OWN = {engine: suffix for suffix, engine in BY_SUFFIX.items()}
OTHERS = ".tflite"  # what engines run that are no format's own: LiteRT without its delegate, TensorFlow, devices


@dataclass(frozen=True)
class Choice:
    """A file, and the name of an engine that runs it and is installed."""

    path: Path
    engine: str


def takes(engine: str, path: Path) -> bool:
    """Whether an engine, named with its argument or without, runs files of that suffix."""
    return OWN.get(engine.partition(":")[0], OTHERS) == path.suffix.lower()


def choose(paths: Sequence[Path], engines: Sequence[str] = ()) -> list[Choice]:
    """Every file on each of the engines that takes it; on its format's own where none of them does, or none is named.

    Raises:
        BadInput: no file at all, a path where there is nothing or that is no UTF-8, a kind of file or an engine that is
            unknown or not installed, or a named engine that takes none of the files.
    """
    if not paths:
        raise BadInput("expected files to judge, found none: name exported files.")
    for path in paths:
        if str(path) != os.fsencode(path).decode(errors="replace"):
            raise BadInput(f"expected a path in UTF-8, found {str(path)!a}: rename it, engines take no other.")
        if not path.exists():
            raise BadInput(f"expected an exported file, found nothing at {path}: check the path.")
        if path.suffix.lower() not in BY_SUFFIX:
            raise BadInput(f"expected a model file ({', '.join(BY_SUFFIX)}), found {path}: name an exported file.")
    for name in engines:
        if not any(takes(name, path) for path in paths):
            opener_of(f"model{OWN.get(name, OTHERS)}", name)  # says so where the name is unknown
            kind = OWN.get(name.partition(":")[0], OTHERS)
            raise BadInput(
                f"expected a {kind} among the files for the engine {name}, found none: add one, or leave the engine out."
            )
    pairs = dict.fromkeys(
        (path, name)
        for path in paths
        for name in [one for one in engines if takes(one, path)] or [BY_SUFFIX[path.suffix.lower()]]
    )
    for path, name in pairs:
        opener_of(path, name)  # imports the engine, or says what is missing
    return [Choice(path, name) for path, name in pairs]
