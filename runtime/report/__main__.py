"""`python -m runtime.report student.pt FILE... --out report.html`: the gate, and a page that shows what it found."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from compress.checkpoint import load_student
from compress.cli import command_line
from compress.data.benchmarks import BUILT_IN, open_benchmark
from compress.errors import BadInput
from compress.files import check_writable
from compress.progress import progress
from compress.teachers import TeacherSpec, load_teacher
from runtime.parity.gate import check
from runtime.parity.limits import read_policy
from runtime.parity.quality import backbone_here
from runtime.parity.verdict import print_report
from runtime.report.gather import counter, curves_of, gather
from runtime.report.page import write_report
from runtime.report.saved import read_parity
from runtime.report.scenes import MOST
from runtime.selection import choose


def main(
    student: Path,
    paths: list[Path],
    *,
    out: Path = Path("report.html"),
    engines: Sequence[str] = (),
    sets: Sequence[str] = (),
    data: Path | None = None,
    images: Path | None = None,
    limits: Path | None = None,
    photo: Path | None = None,
    teacher: Path | None = None,
    layout: Literal["auto", "student", "leftthomas", "goldhuang", "rlfn", "bsrn", "spandrel"] = "auto",
    parity: Path | None = None,
    log: Path | None = None,
    threads: int = 1,
) -> int:
    """Runs the gate on exported files and writes a page with pictures, plots and figures. Exits as the gate does.

    The page is one HTML file that loads nothing; it is written for files that fail, too.

    Args:
        student: the student.pt; for int8 files the int8 one.
        paths: exported files.
        out: the page, .html.
        engines: a file runs on each of these that takes its kind; default: on its own.
        sets: benchmark sets below the data folder; default: 'skimage', photographs that are held out from training.
        data: folder of benchmark sets; default: the environment's POCKETSR_DATA, else data/eval.
        images: folder of HR photographs of yours to compare on.
        limits: YAML file of limits, as of the gate.
        photo: a photograph of yours to upscale and show, without ground truth.
        teacher: a larger network to show beside the student.
        layout: of the teacher's file, see recipes.
        parity: take the gate's result from this file of `python -m runtime.parity --json` instead of running it.
        log: log.csv of the training, for its curves.
        threads: of every engine.
    """
    _check_out(out, [student, *paths])
    loaded = load_student(student)
    check_writable(out)
    names = [*sets, *([str(images)] if images else [])] or [BUILT_IN]
    benchmarks = [open_benchmark(name, loaded.scale, data) for name in names]
    taught = load_teacher(TeacherSpec(file=teacher, layout=layout), loaded.scale) if teacher else None
    curves = curves_of(log) if log else ()
    policies = [read_policy(limits)] if limits else []
    if parity:
        result = read_parity(parity, loaded, paths, [one.name for one in benchmarks])
    else:
        choose(paths, engines)  # before anything slow
        backbone, without = backbone_here()
        with progress("parity", sum(map(len, benchmarks))) as update:
            result = check(
                loaded, paths, benchmarks, policies, engines=engines, lpips=backbone, without_lpips=without,
                threads=threads, on_image=counter(update),
            )  # fmt: skip
    with progress("pictures", MOST) as update:
        shown = gather(
            loaded, result, benchmarks, command=_command(), teacher=taught, photo=photo, curves=curves, threads=threads,
            on_image=counter(update),
        )  # fmt: skip
    write_report(out, shown)
    print_report(result)
    print(f"report: {out} ({out.stat().st_size / 1e6:.1f} MB)")
    return 0 if result.passed else 1


def _check_out(out: Path, inputs: Sequence[Path]) -> None:
    """Raises BadInput for a page that cannot be written, before any work is done."""
    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise BadInput(f"expected an .html file for the page, found {out}: rename it.")
    if any(out.exists() and one.exists() and out.samefile(one) for one in inputs):
        raise BadInput(f"expected a page beside its inputs, found that {out} would overwrite one: rename it.")


def _command() -> str:
    return shlex.join(["python", "-m", "runtime.report", *sys.argv[1:]])


if __name__ == "__main__":
    command_line(main, contained=True)
