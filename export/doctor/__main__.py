"""`python -m export.doctor student.pt`: what will hurt on a phone, before anything is exported."""

import dataclasses
from json import dumps
from pathlib import Path

from compress.checkpoint import Student, load_student
from compress.cli import command_line
from compress.files import write_text
from compress.quantization.calibration import CalibrationCrops, calibration_crops
from export.audit.findings import SEVERITIES, Finding
from export.audit.report import print_findings
from export.doctor.integers import value_findings, weight_findings
from export.doctor.structure import mask_findings, structural_findings


def diagnose(student: Student, crops: CalibrationCrops | None = None) -> list[Finding]:
    """Everything that is found, the worst first.

    Args:
        student: float or int8, of any architecture.
        crops: to measure what int8 costs the values; None leaves that out.
    """
    if not student.has_graph:
        one_size = Finding(
            "warning",
            "student",
            f"the attention of {student.architecture!r} does not fit the deploy graph",
            "it ships in float alone, for one image size, and tiles of a photograph do not fit together exactly",
            "distil a student of another architecture from it (`python -m compress.train`)",
        )
        return [one_size, *mask_findings(student)]
    graph = student.deploy()
    found = [*structural_findings(student, graph), *weight_findings(graph)]
    if crops is not None:
        found += value_findings(student, graph, crops.crops)
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def main(student: Path, *, calibration: str | None = None, json: Path | None = None) -> None:
    """Names what will hurt on a phone before a student is exported. It advises: the exit code is 0.

    Args:
        student: student.pt, float or int8.
        calibration: folder of photographs, or 'skimage', to measure what int8 costs the values between the layers.
        json: file for the same findings.
    """
    loaded = load_student(student)
    crops = calibration_crops(calibration, loaded.scale) if calibration else None
    found = diagnose(loaded, crops)
    parameters = sum(weight.numel() for weight in loaded.weights.values())
    print(f"{student}: {loaded.architecture} x{loaded.scale}, {loaded.precision}, {parameters:,} numbers")
    print_findings(found)
    if crops is None:
        print("what int8 costs the values between the layers was not measured: add --calibration FOLDER, or skimage")
    if json:
        rows = [dataclasses.asdict(finding) for finding in found]
        write_text(
            json, dumps({"student": str(student), "measured": crops is not None, "findings": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    command_line(main)
