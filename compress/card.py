"""Model cards: `python -m compress.card student.pt --sets Set5 Set14` measures a student and writes what to know of it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress.checkpoint import Student, load_student, save_student
from compress.cli import command_line
from compress.data.benchmarks import open_benchmark
from compress.evaluate import evaluate, torch_upscaler
from compress.files import write_text
from compress.metrics import Backbone
from compress.progress import progress

OUTPUT = (1280, 720)  # the size at which the literature counts multiply-accumulates


def measure(student: Student, sets: Sequence[str], data: Path | None, lpips: Backbone | None) -> Student:
    """The student with result rows of the given benchmark sets in place of its old ones of the same sets."""
    benchmarks = [open_benchmark(name, student.scale, data) for name in sets]
    upscale, rows = torch_upscaler(student.reference()), []
    total = sum(len(benchmark) for benchmark in benchmarks)
    with progress("measure", total) as update:
        for benchmark in benchmarks:
            done = sum(row["images"] for row in rows)
            seen: list[str] = []

            def count(name: str, seen: list[str] = seen, done: int = done) -> None:
                seen.append(name)
                update(done + len(seen), name)

            rows.append(evaluate(upscale, benchmark, lpips=lpips, on_image=count))
    measured = [{key: value for key, value in row.items() if key != "per_image"} for row in rows]
    kept = [row for row in student.metrics if row["set"] not in sets]
    return dataclasses.replace(student, metrics=kept + measured)


def card(student: Student, name: str) -> str:
    """The model card of a measured student, as Markdown."""
    options = ", ".join(f"{key} {value}" for key, value in student.config.items())
    lines = [
        f"# {name}",
        "",
        f"- Network: {student.architecture} x{student.scale} ({options}), {student.precision}",
        *_costs(student),
        "- Images: RGB, values in [0, 1]; int8 files take and give pixel - 128 (scale 1/255, zero point -128)",
        *_training(student.provenance),
    ]
    if student.quantization:
        c = student.quantization.calibration
        lines.append(
            f"- Quantization: {', '.join(_steps(c))}, {c['crops']} crops of {c['side']}x{c['side']} from "
            f"{c['images']} images of {c['source']} (SHA-256 of the crops {c['sha256'][:16]}...)"
        )
    return "\n".join([*lines, "", *_results(student.metrics)]) + "\n"


def _costs(student: Student) -> list[str]:
    if not student.has_graph:
        count = sum(parameter.numel() for parameter in student.network().parameters())
        return [f"- Parameters: {count:,}", "- Ships in float, for one image size: its attention depends on it"]
    graph = student.deploy()
    macs = graph.macs(1, 1) * OUTPUT[0] * OUTPUT[1] / student.scale**2
    return [
        f"- Parameters that ship: {graph.parameters_count():,}",
        f"- Multiply-accumulates for {OUTPUT[0]}x{OUTPUT[1]} output: {macs / 1e9:.2f} G",
        f"- Receptive-field radius: {graph.receptive_radius()} LR pixels",
    ]


def _steps(calibration: dict[str, Any]) -> list[str]:
    """How the integers were chosen, in words."""
    words = {
        "equalization": "cross-layer equalization",
        "clipping": "clipped weights",
        "bias_correction": "bias correction",
    }
    used = [word for key, word in words.items() if calibration.get(key)]
    return [calibration["method"], f"ranges by {calibration['range']}", *used]


def _training(provenance: dict[str, Any]) -> list[str]:
    if "recipe" not in provenance:
        return []
    recipe, data, teacher = provenance["recipe"], provenance["data"], provenance["teacher"]
    schedule = recipe["schedule"]
    taught = f" from {teacher['description']}" if teacher else ""
    return [
        f"- Trained by {recipe['method']['name']}{taught} {recipe['method']['options']}",
        f"- Data: {data['source']}, {data['images']} images (SHA-256 of the manifest {data['manifest_sha256'][:16]}...)",
        f"- {provenance['steps']:,} steps of {provenance['batch']} patches of {recipe['data']['lr_patch']}x"
        f"{recipe['data']['lr_patch']} LR pixels, Adam {schedule['learning_rate']:g} to {schedule['final_rate']:g} "
        f"({schedule['kind']}), EMA {schedule['ema']:g}, {provenance['precision']}, seed {recipe['seed']}",
        f"- Written with {', '.join(f'{key} {value}' for key, value in provenance['versions'].items())}",
    ]


def _results(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return ["Not measured yet."]
    lines = ["| set | images | PSNR, dB | SSIM | LPIPS |", "|---|---|---|---|---|"]
    for row in rows:
        lpips = "-" if row.get("lpips") is None else f"{row['lpips']:.4f}"
        lines.append(
            f"| {row['set']} x{row['scale']} | {row['images']} | {row['psnr']:.3f} | {row['ssim']:.4f} | {lpips} |"
        )
    protocol = rows[0]["protocol"]
    return [
        *lines,
        "",
        "Protocol: " + "; ".join(f"{key} {value}" for key, value in protocol.items() if value is not None),
    ]


def main(
    student: Path,
    *,
    sets: Sequence[str] = (),
    data: Path | None = None,
    lpips: Backbone | None = None,
    out: Path | None = None,
) -> None:
    """Measures a student, records the results in its file, and writes a model card.

    Args:
        student: student.pt; the result rows are added to it.
        sets: benchmark sets to measure; left out, the card is made of the rows that the file has.
        data: folder that holds the sets.
        lpips: backbone of LPIPS; left out, no LPIPS.
        out: the card; left out, the student's name with .md.
    """
    given = load_student(student)
    if sets:
        given = measure(given, sets, data, lpips)
        save_student(given, student)
    target = out or student.with_suffix(".md")
    write_text(target, card(given, student.stem))
    print(f"wrote {target}")


if __name__ == "__main__":
    command_line(main)
