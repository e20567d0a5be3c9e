"""What was made from what, with which programs, where; and how the figures came about, in words."""

import time
from collections.abc import Mapping
from typing import Any

from compress.checkpoint import Student
from compress.files import sha256
from compress.run import versions
from export.folder import folder_sha256
from runtime.names import told_apart
from runtime.parity.limits import Limits
from runtime.parity.results import ParityReport
from runtime.report.machine import machine
from runtime.report.scenes import labels

FLOAT_HASH = "float_student_sha256"
LR = {"files": "the sets' own files", "imresize": "MATLAB's bicubic imresize of the photographs"}
LIMITS = {
    "float_psnr": "float files at least {:g} dB (R, G and B, worst photograph) to the reference",
    "int8_lsb": "int8 files no value more than {:g} LSB off",
    "int8_within": "{:.0%} of values within 1 LSB",
    "int8_identical": "{:.0%} identical",
    "loss": "at most {:g} dB lost against the float student",
    "lpips_change": "LPIPS at most {:g} higher than the float student's",
    "latency_ratio": "at most {:g} times PyTorch's latency",
    "peak_ratio": "at most {:g} times PyTorch's peak memory",
    "peak_mib": "at most {:g} MiB of peak memory",
    "size_kb": "at most {:g} kB",
}


def provenance(student: Student, parity: ParityReport, command: str) -> dict[str, str]:
    """Names and values for the page; what a student does not know of itself is left out."""
    options = ", ".join(f"{key} {value}" for key, value in student.config.items())
    rows = {
        "student": f"{student.architecture} ({options}), {student.precision}",
        "student's hash": parity.student,
        "float student's hash": student.provenance.get(FLOAT_HASH),
        **_training(student.provenance),
        "calibration": _calibration(student),
    }
    for path, name in told_apart(one.path for one in (*parity.files, *parity.refused)).items():
        if path.is_dir():
            rows[name] = f"SHA-256 of its files' SHA-256 and names {folder_sha256(path)}"
        for part, label in ((path, name), (path.with_suffix(".bin"), f"{name}'s .bin")):
            if part.is_file() and (part == path or path.suffix == ".param"):
                rows[label] = f"SHA-256 {sha256(part)}"
    producers = {name: version for file in parity.files for name, version in file.description.metadata.producer.items()}
    rows |= {
        "exported with": _named(producers),
        "run by": ", ".join(dict.fromkeys(file.description.version for file in parity.files)),
        "versions": _named(versions()),
        "machine": machine(),
        "command": command,
        "made": time.strftime("%Y-%m-%d %H:%M %Z"),
    }
    return {name: value for name, value in rows.items() if value}


def protocol(parity: ParityReport) -> list[str]:
    """How the figures came about."""
    found = parity.protocol
    sets = ", ".join(f"{one.name} ({one.images})" for one in parity.files[0].sets) if parity.files else "none"
    by_limits: dict[Limits, list[str]] = {}
    for file, name in zip(parity.files, labels(parity.files), strict=True):
        by_limits.setdefault(file.limits, []).append(name)
    return [
        f"Against the reference: the raw output of each file on the photographs of {sets}; int8 files against the integer "
        "arithmetic of the int8 student, float files against the float network.",
        *(f"Limits of {', '.join(names)}: {_limits(limits)}." for limits, names in by_limits.items()),
        f"Quality against ground truth: PSNR on {found['colour']}; {found['rounding']}; a border of {found['border']} "
        f"pixels left out; {found['psnr']}.",
        f"LR images: {LR.get(found['lr'], found['lr'])}.",
        *([f"Files that take one size only: everything on {found['crop']}."] if found.get("crop") else []),
        f"Latency: median and 90th percentile of {parity.pytorch.runs} runs after a warm-up, models taking turns in one "
        "process; the bars are the network alone. Peak memory: growth of the resident set of a fresh process over "
        "opening, allocating and one run.",
        f"LPIPS: {found['lpips'] if parity.without_lpips is None else f'not computed: {parity.without_lpips}'}.",
        "The pictures of the slider are JPEG; crops and heat maps are stored without loss. Photographs are the first of "
        "every set, cut where their LR image has most detail; PSNR beside a name is of the whole photograph.",
    ]


def _limits(limits: Limits) -> str:
    """All that hold, in words."""
    return "; ".join(
        words.format(value) for name, words in LIMITS.items() if (value := getattr(limits, name)) is not None
    )


def _training(origin: Mapping[str, Any]) -> dict[str, str]:
    """How a student of ours was trained, or where published weights came from."""
    if "recipe" not in origin:
        told = {key: value for key, value in origin.items() if isinstance(value, str) and key != FLOAT_HASH}
        return {"weights": _named(told)}
    recipe, data, teacher = origin["recipe"], origin["data"], origin["teacher"]
    return {
        "trained by": f"{recipe['method']['name']} {_named(recipe['method']['options'])}, {origin['steps']:,} steps, "
        f"{origin['precision']}, seed {recipe['seed']}",
        "started from": str(recipe["model"].get("start") or "random weights"),
        "teacher": teacher["description"] if teacher else "none",
        "training images": f"{data['images']} of {data['source']}, manifest {data['manifest_sha256'][:16]}",
    }


def _calibration(student: Student) -> str | None:
    if student.quantization is None:
        return None
    found = student.quantization.calibration
    return (
        f"{found['crops']} crops of {found['images']} images of {found['source']}, ranges by {found['range']}, pixels "
        f"{found['sha256'][:16]}"
    )


def _named(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
