"""Pipelines: `python -m compress.pipeline recipes/NAME.yaml` trains, prunes and quantizes in stages, and measures each.

Each stage's student.pt is what later stages go on from. A pipeline that was stopped or killed goes on when the same
command is given again.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from compress.data.benchmarks import open_benchmark
from compress.distributed import deaths_in_words, leave
from compress.errors import BadInput, run_command
from compress.files import write_text, written_atomically
from compress.metrics import lpips_metric
from compress.pipeline.measure import FILE as RESULT
from compress.pipeline.measure import (
    MADE_OF,
    backbone_of,
    draw_strip,
    present,
    read_json,
    write_bicubic,
    write_result,
    write_sizes,
)
from compress.pipeline.preflight import check_inputs, naming
from compress.pipeline.processes import Processes
from compress.pipeline.recipe import Pipeline, published_header, read_pipeline
from compress.pipeline.records import Standing, begin, finish, remove, standing
from compress.pipeline.stages import REFERENCE, SIZES, STUDENT, TRAIN, Stage
from compress.variants import QUICK

HELP = """Runs the stages of a pipeline in order: training, pruning, quantization. Stages that have finished are skipped,
one that was interrupted goes on. Every stage is measured; --publish copies the figures for `python -m compress.results`.
Works under torchrun as `python -m compress.train` does."""
OVERRIDES = """Any other --name.of.option VALUE changes that option in all training stages, as --data.folder photos or
--validation.data sets; --stages.NAME.KIND.OPTION VALUE changes one stage, --report.OPTION VALUE what is reported."""


def run(
    pipeline: Pipeline,
    processes: Processes,
    *,
    only: Sequence[str] = (),
    redo: Sequence[str] = (),
) -> None:
    """Runs the stages of a pipeline that have not finished, and measures all that have.

    Args:
        pipeline: read and checked.
        processes: those that torchrun started.
        only: names of the stages to run; all where there are none.
        redo: stages to delete first, together with those that read what they make.

    Raises:
        BadInput: unknown names, stages that were run with other settings, files that are not there.
    """
    for option, names in (("--stage", only), ("--redo", redo)):
        if unknown := [name for name in names if name not in pipeline.stages]:
            known = ", ".join(pipeline.stages)
            raise BadInput(f"expected stages out of {known} for {option}, found {unknown[0]!r}: correct the name.")
    chosen = [stage for name, stage in pipeline.stages.items() if not only or name in only]
    deleted = pipeline.with_dependents(redo)
    processes.first(lambda: _prepare(pipeline, chosen, deleted))
    total = len(pipeline.stages)
    for number, (name, stage) in enumerate(pipeline.stages.items(), 1):
        if stage not in chosen:
            continue
        title = f"stage {number} of {total}: {name}"
        finished = processes.first(lambda stage=stage: _start(pipeline, stage))
        _say(f"{title}, finished before" if finished else title, processes)
        if not finished:
            with naming(stage):
                if stage.kind == TRAIN:  # in all processes
                    stage.run(pipeline.out, pipeline.products)
                else:
                    processes.first(lambda stage=stage: stage.run(pipeline.out, pipeline.products))
            processes.first(lambda stage=stage: finish(stage, pipeline.out / stage.name))
        processes.first(lambda stage=stage: _measure(pipeline, stage) and None)
    processes.first(lambda: _summarise(pipeline))


def publish(pipeline: Pipeline, folder: Path) -> list[str]:
    """Copies the figures and the strip to a folder of results; returns the names of the rows that there are."""
    rows = [name for name in pipeline.rows if (pipeline.out / name / RESULT).is_file()]
    sizes = [name for name, stage in pipeline.stages.items() if stage.product == SIZES]
    files = {f"{name}.json": pipeline.out / name / RESULT for name in rows + sizes}
    files |= {name: pipeline.out / name for name in ("bicubic.json", "strip.png")}
    header = folder / "pipeline.json"
    if header.is_file():  # rows that the recipe no longer has
        for name in read_json(header).get("files", []):
            (folder / Path(name).name).unlink(missing_ok=True)
    copied = [name for name, source in files.items() if source.is_file()]
    for name in copied:
        if name.endswith(".json"):
            figures = {key: value for key, value in read_json(files[name]).items() if key != MADE_OF}
            write_text(folder / name, json.dumps(figures, indent=1, sort_keys=True) + "\n")
        else:
            with written_atomically(folder / name) as part:
                shutil.copyfile(files[name], part)
    content = published_header(pipeline, rows, "strip.png" in copied) | {"files": copied}
    write_text(header, json.dumps(content, indent=1, sort_keys=True) + "\n")
    return rows


def _prepare(pipeline: Pipeline, chosen: Sequence[Stage], deleted: Sequence[str]) -> None:
    """Refuses what cannot work before anything is deleted, trained or written."""
    done = {
        name
        for name in pipeline.with_sources([stage.name for stage in chosen])
        if name not in deleted and _standing(pipeline, pipeline.stages[name]) == "finished"
    }
    running = [stage for stage in chosen if stage.name not in done]
    for stage in running:
        check_inputs(pipeline, stage, done | {one.name for one in running})
    if any(name in pipeline.rows for name in (stage.name for stage in chosen)):
        if backbone := backbone_of(pipeline.report.lpips):
            lpips_metric(backbone)
        if missing := [name for name in pipeline.sets if name not in _sets(pipeline)]:
            _say(f"benchmark sets that are not there are left out: {', '.join(missing)}")
    for name in deleted:
        if (pipeline.out / name).exists():
            _say(f"deleting stage {name}")
            remove(pipeline.out / name)


def _start(pipeline: Pipeline, stage: Stage) -> bool:
    """Whether a stage has finished; if not, writes down what it is about to be run with."""
    inputs = pipeline.inputs(stage)
    for option, path in inputs.items():
        if not path.is_file():
            raise BadInput(f"expected the file {path} for {option} of stage {stage.name!r}, found none: see its stage.")
    if _standing(pipeline, stage) == "finished":
        return True
    begin(stage, pipeline.out / stage.name, inputs)
    return False


def _standing(pipeline: Pipeline, stage: Stage) -> Standing:
    return standing(stage, pipeline.out / stage.name, pipeline.inputs(stage))


def _measure(pipeline: Pipeline, stage: Stage) -> dict[str, Any]:
    """The stage's result.json, made where it does not hold, and that of the stage that it went on from."""
    if stage.product == SIZES:
        return write_sizes(stage, pipeline.out)
    found = REFERENCE.fullmatch(stage.start or "")
    start = _measure(pipeline, pipeline.stages[found[1]]) if found else None
    sets = _sets(pipeline) if stage.name in pipeline.rows else []
    return write_result(stage, pipeline.out, sets=sets, data=pipeline.data, lpips=pipeline.report.lpips, start=start)


def _sets(pipeline: Pipeline) -> list[str]:
    return present(pipeline.sets, pipeline.data)


def _summarise(pipeline: Pipeline) -> None:
    """Bicubic's figures and the strip of crops, once everything that they show is there; and a line per row."""
    results = {
        name: read_json(pipeline.out / name / RESULT)
        for name in pipeline.rows
        if (pipeline.out / name / RESULT).is_file()
    }
    scales, sets = {result["scale"] for result in results.values()}, _sets(pipeline)
    if len(scales) == 1 and sets:
        (scale,) = scales
        write_bicubic(pipeline.out, scale, sets, pipeline.data, pipeline.report.lpips)
        students = {name: pipeline.out / name / STUDENT for name in pipeline.report.strip}
        strip = pipeline.out / "strip.png"
        drawn = strip.stat().st_mtime if strip.is_file() else 0.0
        if students and all(path.is_file() for path in students.values()) and _newest(students.values()) > drawn:
            benchmark = open_benchmark(sets[0], scale, pipeline.data)
            draw_strip(strip, students, benchmark, pipeline.report.picture)
    for name, result in results.items():
        rows = (
            f"{row['set']} {row['psnr']:.2f} dB, SSIM {row['ssim']:.4f}" for row in result["metrics"] if row["psnr"]
        )
        print("; ".join([f"{name}: {result['parameters']:,} parameters", *rows]))


def _newest(paths: Iterable[Path]) -> float:
    return max(path.stat().st_mtime for path in paths)


def _say(line: str, processes: Processes | None = None) -> None:
    if processes is None or processes.leads:
        print(line, file=sys.stderr, flush=True)


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message}: `{self.prog} --help` lists the options.")


def command_parser() -> argparse.ArgumentParser:
    """The options of the command, but for the overrides."""
    parser = _Arguments(prog="python -m compress.pipeline", description=HELP, epilog=OVERRIDES, allow_abbrev=False)
    parser.add_argument("recipe", type=Path, help="YAML file with the stages, such as recipes/poster.yaml")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", dest="variant", action="store_const", const=QUICK, help="its short form")
    which.add_argument("--variant", metavar="NAME", help="another of its forms")
    parser.add_argument("--stage", nargs="+", default=[], metavar="NAME", help="run only these stages")
    parser.add_argument(
        "--redo", nargs="+", default=[], metavar="NAME", help="delete these stages and all that depend on them first"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the stages, in place of the recipe's")
    parser.add_argument("--publish", type=Path, metavar="DIR", help="copy the figures there, as to results/poster")
    return parser


def main() -> None:
    given, overrides = command_parser().parse_known_args()
    pipeline = read_pipeline(given.recipe, given.variant, overrides, given.out)
    with deaths_in_words(pipeline.out):
        processes = Processes()
        run(pipeline, processes, only=given.stage, redo=given.redo)
    leave()
    if given.publish and processes.leads:
        rows = publish(pipeline, given.publish)
        print(f"wrote the figures of {len(rows)} of {len(pipeline.rows)} rows to {given.publish}")


if __name__ == "__main__":
    run_command(main)
