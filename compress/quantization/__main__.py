"""`python -m compress.quantization student.pt --out student_int8.pt`."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Literal

from rich.console import Console

from compress import files
from compress.checkpoint import Student, load_student, save_student
from compress.cli import command_line
from compress.data.benchmarks import BUILT_IN, open_benchmark
from compress.errors import BadInput
from compress.progress import progress
from compress.quantization.budget import Costs, Mix, check_budget, why, within_budget
from compress.quantization.calibration import CROPS, CalibrationCrops, calibration_crops
from compress.quantization.mix import layers
from compress.quantization.observers import RangeRule
from compress.quantization.ptq import Trial, finished, float_graph, quantize_student
from compress.quantization.sensitivity import CROPS as JUDGED
from compress.quantization.sensitivity import Judge, sensitivities, table, to_report

LOG_WIDTH = 110  # columns where there is no terminal to ask


def main(
    student: Path,
    *,
    out: Path,
    calibration: str = "skimage",
    rule: RangeRule | None = None,
    crops: int = CROPS,
    plain: bool = False,
    activations: Literal["int8", "int16"] = "int8",
    report: Path | None = None,
    budget: float | None = None,
    judge: str = BUILT_IN,
    judged: int = JUDGED,
    data: Path | None = None,
    int16_cost: float = Costs.int16,
    float_cost: float = Costs.real,
) -> None:
    """Quantizes a float student to int8 (post-training), or to a mix that keeps a budget.

    Args:
        student: a float student.pt.
        out: the int8 student.pt to write.
        calibration: folder of photographs, or 'skimage' for those that scikit-image installs.
        rule: how the range of each value is chosen; left out, as the crops tell.
        crops: number of LR crops to observe.
        plain: ranges alone, without equalization, clipped weights and bias correction.
        activations: int8, or int16 for 16-bit values with the same int8 weights: more exact, and slow on CPUs.
        report: JSON file for what each layer loses, which is printed as a table, too.
        budget: dB that may be lost against ground truth; layers become int16 or float until the rest keeps it.
        judge: benchmark set or folder of HR photographs that --report and --budget measure on; not that of --calibration.
        judged: number of crops of it.
        data: folder of benchmark sets; default: the environment's POCKETSR_DATA, else data/eval.
        int16_cost: of a multiply-accumulate with 16-bit values, in those of int8.
        float_cost: the same in float.
    """
    if budget is not None:
        check_budget(budget)
    if plain + (activations == "int16") + (budget is not None or report is not None) > 1:
        raise BadInput(
            "expected one of --plain, --activations int16, and --budget or --report, found several: choose one."
        )
    given = load_student(student)
    observed = calibration_crops(calibration, given.scale, count=crops)
    if budget is None and report is None:
        quantized = quantize_student(given, observed, rule, plain=plain, arithmetic=activations)
    else:
        judge_ = Judge(float_graph(given), open_benchmark(judge, given.scale, data), count=judged)
        quantized = _measured(given, observed, rule, judge_, budget, Costs(int16=int16_cost, real=float_cost), report)
    save_student(quantized, out)
    quantization = quantized.quantization
    assert quantization is not None
    print(f"wrote {out}: {quantization.precision}, {len(quantization.layers)} layers, calibrated on {crops} crops")


def _measured(
    student: Student,
    crops: CalibrationCrops,
    rule: RangeRule | None,
    judge: Judge,
    budget: float | None,
    costs: Costs,
    report: Path | None,
) -> Student:
    """The student with its sensitivities printed and written, as int8 or as the mix that keeps the budget."""
    trial = Trial(judge.graph, crops.crops)
    plan = trial.best(rule, {})
    calibration = {**dataclasses.asdict(plan), **crops.describe()}
    names = [layer.name for layer in layers(trial.graph)]
    with progress("layers", len(names)) as update:
        rows = sensitivities(trial, plan, judge, lambda name: update(names.index(name) + 1, name))
    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
    console.print(table(rows))
    described, lines = judge.describe(), []
    if budget is None:
        quantization = trial.quantization(plan, {})
        loss = judge.loss(quantization)
        lines = [f"int8 in every layer loses {loss:.4f} dB"]
        content = to_report(rows, described, loss)
    else:
        mix: Mix = within_budget(trial, plan, rows, judge, budget, costs)
        quantization, lines = mix.quantization, why(mix, rows, budget)
        content = to_report(rows, described, mix.int8_loss, budget=budget, mix={
            "layers": mix.chosen, "loss": mix.loss, "cost": mix.cost, "costs": dataclasses.asdict(costs), "why": lines,
        })  # fmt: skip
        calibration |= {"budget": budget, "loss": mix.loss, "judged_on": described}
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)
    print(f"measured on {described['crops']} crops of {described['side']}x{described['side']} of {described['set']}")
    if report:
        files.write_text(report, json.dumps(content, indent=1) + "\n")
    return finished(student, quantization, calibration)


if __name__ == "__main__":
    command_line(main)
