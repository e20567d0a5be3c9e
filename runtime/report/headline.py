"""The head of the page: one sentence of all verdicts, the few figures that matter, and bars of latency."""

import math

from export.metadata import INTEGER
from runtime.parity.judge import MEBIBYTE
from runtime.parity.results import FileParity, ParityReport, tidy
from runtime.report.scenes import labels

ENGINE_NAMES = {
    "litert": "TFLite",
    "litert-builtin": "TFLite without XNNPACK",
    "onnxruntime": "ONNX Runtime",
    "coreml": "Core ML",
    "executorch": "ExecuTorch",
    "tensorflow": "TensorFlow's interpreter",
}


def headline(parity: ParityReport) -> str:
    """What the gate found, over all files, in one sentence."""
    judged = zip(parity.files, labels(parity.files), strict=True)
    failed = [*(name for file, name in judged if not file.passed), *(one.name for one in parity.refused)]
    if failed:
        total = len(parity.files) + len(parity.refused)
        count = "The only file fails" if total == 1 else f"{len(failed)} of {total} files fail"
        return f"{count} the gate: do not ship {_listed(failed)}."
    integer = [file for file in parity.files if file.description.precision in INTEGER]
    told = integer or list(parity.files)
    engines = _listed(list(dict.fromkeys(_engine(file) for file in told)))
    lost = f"{tidy(max(0.0, *(file.loss for file in told)))} dB of PSNR"
    if integer:
        largest = max(file.agreement.max_lsb for file in integer)
        within = "bit for bit" if largest == 0 else f"within {largest:.0f} LSB"
        return f"The int8 student in {engines} agrees with the PyTorch reference {within} and lost {lost} at most."
    worst = min(file.agreement.psnr for file in told)
    same = "bit for bit" if math.isinf(worst) else f"to {worst:.0f} dB"
    return f"The student in {engines} agrees with PyTorch {same} and lost {lost} at most."


def tiles(parity: ParityReport) -> list[tuple[str, str]]:
    """The few figures that matter, of the smallest int8 file, or else of the smallest file, of those that pass if any do:
    (figure, meaning).
    """
    if not parity.files:
        return []
    judged = [file for file in parity.files if file.passed] or list(parity.files)
    integer = [file for file in judged if file.description.precision in INTEGER]
    best = min(integer or judged, key=lambda file: file.file_bytes)
    largest = max(parity.files, key=lambda file: file.file_bytes)
    found = [(f"{best.file_bytes / 1000:.0f} kB", f"{best.name} on disk{_ratio(largest, best)}")]
    agreement = best.agreement
    if best.description.precision in INTEGER:
        found.append(
            (f"{agreement.max_lsb:.0f} LSB", f"largest difference to PyTorch; {agreement.identical:.2%} identical")
        )
    else:
        same = "identical" if math.isinf(agreement.psnr) else f"{agreement.psnr:.0f} dB"
        found.append((same, "output against PyTorch's"))
    found.append((f"{tidy(best.loss)} dB", "lost against the float student, on ground truth"))
    if best.latency:
        height, width = best.latency.lr_size
        found.append((f"{best.latency.median:.1f} ms", f"median for {width}x{height} pixels in, on this machine"))
    if best.peak_bytes is not None:
        found.append((f"{best.peak_bytes / MEBIBYTE:.0f} MiB", "peak memory of that inference"))
    return found


def latency_bars(parity: ParityReport) -> list[tuple[str, float, str]]:
    """(name, share of the longest in percent, words) of every median latency."""
    judged = zip(parity.files, labels(parity.files), strict=True)
    named = [(name, file.latency.median) for file, name in judged if file.latency]
    named.append(("student in PyTorch", parity.pytorch.median))
    longest = max(value for _, value in named)
    return [(name, 100 * value / longest, f"{value:.2f} ms") for name, value in named]


def _engine(file: FileParity) -> str:
    engine = file.engine
    name = ENGINE_NAMES.get(engine, engine)
    return name if file.description.native else f"{name} (evaluated)"


def _ratio(largest: FileParity, best: FileParity) -> str:
    ratio = largest.file_bytes / best.file_bytes
    return f", {ratio:.1f} times smaller than {largest.name}" if ratio >= 1.1 else ""


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
