"""Whether a file is what it is called: from that student, of that precision, with that student's scales and weights."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from compress.checkpoint import Student
from export.audit import Audit, audit_file
from export.audit.audit import SUFFIXES
from export.audit.truth import contradictions
from export.exporting import QUANTIZED
from export.metadata import Metadata, Precision
from runtime.parity.weights import foreign_weights

NAMED = re.compile(
    rf"(?:^|[_.])({'|'.join(sorted(get_args(Precision), key=len, reverse=True))})$"
)  # the end of a name, as the exporters write it
SAME_SCALE = 1e-6  # of the scale: files keep it as float32
UINT8_OFFSET = 128  # of the zero point of the same values as int8


def faults(path: Path, metadata: Metadata, student: Student) -> Iterator[str]:
    """What the file is not, one sentence each. Raises BadInput for a file that cannot be read back."""
    yield from _stale(metadata, student)
    yield from _misnamed(path, metadata)
    if path.suffix.lower() in SUFFIXES:
        audit = audit_file(path)
        for layer, what in contradictions(audit):
            yield f"mislabelled: {'' if layer == 'file' else f'{layer} is '}{what}: export it again"
        if metadata.precision == "int8" and student.quantization:
            yield from _foreign_scales(audit, student)
        yield from foreign_weights(audit.contents, student, metadata.precision)


def _stale(metadata: Metadata, student: Student) -> Iterator[str]:
    made_from = {student.file_hash}
    if metadata.precision not in QUANTIZED:
        made_from.add(student.provenance.get("float_student_sha256"))
    if metadata.student_sha256 not in made_from:
        yield (
            f"stale: made from another student ({metadata.student_sha256[:12]}, the one given is "
            f"{str(student.file_hash)[:12]}): export it again"
        )


def _misnamed(path: Path, metadata: Metadata) -> Iterator[str]:
    named = NAMED.search(path.stem)
    if named and named[1] != metadata.precision:
        yield f"misnamed: called {named[1]}, and its metadata says {metadata.precision}: rename it, or export the other one"


def _foreign_scales(audit: Audit, student: Student) -> Iterator[str]:
    """Values of an int8 file whose scale or zero point is none of the student's, which quality may not show: what is
    clipped wrongly may be in no photograph here. A value that is called as a step of the student is held against that one.
    """
    assert student.quantization is not None
    own = student.quantization.activations
    for tensor in audit.contents.tensors.values():
        if tensor.values is not None or len(tensor.scales) != 1 or tensor.dtype not in ("INT8", "UINT8"):
            continue
        scale, zero = tensor.scales[0], tensor.zero_points[0] if tensor.zero_points else 0
        zero -= UINT8_OFFSET if tensor.dtype == "UINT8" else 0
        wanted = [own[tensor.name]] if tensor.name in own else list(own.values())
        if not any(abs(one.scale / scale - 1) < SAME_SCALE and one.zero_point == zero for one in wanted):
            yield (
                f"wrong scale: {tensor.name} has scale {scale:.7g} and zero point {zero} (as int8), the student has "
                f"{_scales(wanted, scale)}: export it again, scales are the student's alone"
            )
            return


def _scales(wanted: list, scale: float) -> str:
    near = min(wanted, key=lambda one: abs(one.scale - scale))
    return f"{near.scale:.7g} and {near.zero_point}"
