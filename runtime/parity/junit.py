"""The gate's verdicts as JUnit XML, which CI servers show: a test case for every file on every engine.

The elements and attributes are those that Jenkins' and GitLab's readers share; the figures are properties of the cases.
"""

import io
import math
import re
from pathlib import Path
from xml.etree import ElementTree as Xml

from compress.files import written_atomically
from runtime.parity.results import FileParity, ParityReport, Refusal

FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML 1.0, escaped or not


def write_junit(path: str | Path, report: ParityReport) -> None:
    """Writes the file, atomically."""
    with written_atomically(path) as part:
        part.write_bytes(to_junit(report))


def to_junit(report: ParityReport) -> bytes:
    """The XML document, UTF-8.

    A file that misses a limit is a `failure`, one that could not be judged an `error`; both have the sentences as their
    message and text. Properties have the figures, as numbers without units, and the names of the JSON file.
    """
    failed = [file for file in report.files if not file.passed]
    counts = {
        "tests": str(len(report.files) + len(report.refused)),
        "failures": str(len(failed)),
        "errors": str(len(report.refused)),
        "skipped": "0",
        "time": f"{sum(file.seconds for file in report.files):.3f}",
    }
    whole = Xml.Element("testsuites", counts)
    suite = Xml.SubElement(whole, "testsuite", {"name": "runtime.parity", **counts})
    _properties(suite, {"student_sha256": report.student})
    for one in report.files:
        case = _case(suite, one, one.seconds)
        _properties(case, _figures(one))
        if not one.passed:
            said = [*one.failures, *([one.advice] if one.advice else [])]
            _bad(case, "failure", "limit", said)
        Xml.SubElement(case, "system-out").text = _clean(one.verdict())
    for one in report.refused:
        _bad(_case(suite, one, 0.0), "error", "refused", [one.reason])
    Xml.indent(whole)
    stream = io.BytesIO()
    Xml.ElementTree(whole).write(stream, encoding="utf-8", xml_declaration=True)
    return stream.getvalue() + b"\n"


def _case(suite: Xml.Element, one: FileParity | Refusal, seconds: float) -> Xml.Element:
    name = _clean(f"{one.name} [{one.engine}]")
    attributes = {"classname": "runtime.parity", "name": name, "time": f"{seconds:.3f}"}
    return Xml.SubElement(suite, "testcase", attributes)


def _bad(case: Xml.Element, kind: str, what: str, sentences: list[str]) -> None:
    message = _clean("; ".join(sentences))
    Xml.SubElement(case, kind, {"message": message, "type": what}).text = _clean("\n".join(sentences))


def _properties(element: Xml.Element, values: dict[str, object]) -> None:
    properties = Xml.SubElement(element, "properties")
    for name, value in values.items():
        Xml.SubElement(properties, "property", {"name": name, "value": _clean(str(value))})


def _figures(file: FileParity) -> dict[str, object]:
    """Those that there are."""
    agreement, latency = file.agreement, file.latency
    figures: dict[str, object] = {
        "path": file.path,
        "precision": file.description.precision,
        "version": file.description.version,
        "student_sha256": file.description.metadata.student_sha256,
        "file_bytes": file.file_bytes,
        "psnr": agreement.psnr,
        "max_lsb": agreement.max_lsb,
        "identical": agreement.identical,
        "loss": file.loss,
        "lpips_change": file.lpips_change,
        "peak_bytes": file.peak_bytes,
    }
    if latency:
        parts = {"prepare": latency.prepare, "run": latency.run, "read": latency.read}
        figures |= {f"{name}_median_ms": part.median for name, part in parts.items()}
        figures |= {f"{name}_p90_ms": part.p90 for name, part in parts.items()}
    return {name: value for name, value in figures.items() if value is not None and value != math.inf}


def _clean(text: str) -> str:
    """Without what no XML can hold: control characters, and halves of pairs from names that are no UTF-8."""
    return FORBIDDEN.sub("?", text)
