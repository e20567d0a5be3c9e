"""Figures of the zoo and of published networks, as `python -m benchmarks.zoo` measured them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.errors import BadInput

FIGURES = Path(__file__).parent / "figures.json"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One file.

    Attributes:
        name: of the network.
        group: 'zoo' or 'peer'.
        precision: of the file.
        parameters: that ship.
        file_bytes: size of the .tflite.
        ratio: latency over that of `runtime.report.yardstick` in the same run.
        psnr: dB by benchmark set.
    """

    name: str
    group: str
    precision: str
    parameters: int
    file_bytes: int
    ratio: float
    psnr: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """All files of one scale, and what they were measured on."""

    machine: str
    made: str
    rows: tuple[Figure, ...]


def read_figures(scale: int, path: Path = FIGURES) -> Figures | None:
    """The figures of one scale; None where none were packaged or there are none of that scale.

    Raises:
        BadInput: a file of another kind.
    """
    if not path.is_file():
        return None
    try:
        plain: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple(
            Figure(
                name=row["name"], group=row["group"], precision=row["precision"], parameters=row["parameters"],
                file_bytes=row["bytes"], ratio=row["ratio"], psnr=row["psnr"],
            )
            for row in plain["rows"] if row["scale"] == scale and row["group"] in ("zoo", "peer")
        )  # fmt: skip
        found = Figures(machine=plain["machine"], made=plain["made"], rows=rows)
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(
            f"expected figures that `python -m benchmarks.zoo` wrote, found something else in {path} ({error!r}): write "
            "them again."
        ) from error
    return found if rows else None
