"""`python -m export.onnx student.pt`: a student as an .onnx for ONNX Runtime, TensorRT, OpenVINO or QNN."""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.checkpoint import Student
from compress.cli import command_line
from compress.errors import BadInput
from compress.files import written_atomically
from export.chatter import logged
from export.exporting import ExportedFile, describe, parts, take_order
from export.metadata import ENTRY, Metadata, Precision

KNOWN: tuple[Precision, ...] = ("float32", "float16", "int8", "int8-weights")
PRODUCERS = ("torch", "onnx", "onnxsim")
NAME = "pocketsr"


def export_onnx(student: Student, path: str | Path, precision: Precision) -> ExportedFile:
    """Writes a student as an .onnx, NCHW, RGB, for any number and size of images, with metadata inside.

    Args:
        student: saved or loaded, so that its file's hash is known; an int8 one for 'int8' and 'int8-weights'.
        path: of the file.
        precision: 'float32'; 'float16' (weights and arithmetic; images stay float32); 'int8' (QDQ: weights int8,
            values and images uint8, the student's integers plus 128); 'int8-weights' (arithmetic stays float32).

    Raises:
        BadInput: a float student for integers, an architecture without a deploy form, a precision that ONNX does not
            have, or a file that the checker refuses; nothing is written then.
    """
    from export.lowering.onnx import onnx_model

    path = Path(path)
    graph, quantization = parts(student, precision)
    metadata = describe(student, precision, layout="NCHW", producers=PRODUCERS, pixels="uint8")
    log = path.with_suffix(".log")
    log.unlink(missing_ok=True)
    with logged(log, path.name):
        model = _simplified(onnx_model(graph, quantization, precision))
        model.producer_name = NAME
        model.doc_string = f"PocketSR {metadata.architecture} x{metadata.scale} {precision}"
        model.ClearField("metadata_props")  # onnxsim's
        model.metadata_props.add(key=ENTRY, value=metadata.to_json())
    if not os.path.getsize(log):
        log.unlink()
    with written_atomically(path) as part:
        part.write_bytes(model.SerializeToString())
        operators = _read_back(part, metadata)
    return ExportedFile(path, metadata, operators)


def _simplified(model: Any) -> Any:
    """The model after onnxsim, which must not have changed what it computes."""
    import onnx
    import onnxsim

    onnx.checker.check_model(model, full_check=True)
    simplified, same = onnxsim.simplify(model)
    if not same:
        raise RuntimeError("onnxsim's model computes something else")
    onnx.checker.check_model(simplified, full_check=True)
    return simplified


def _read_back(path: Path, metadata: Metadata) -> Mapping[str, int]:
    """Operators of the written file. Raises BadInput where it is not what its metadata says."""
    import onnx

    model = onnx.load(str(path))
    properties = {entry.key: entry.value for entry in model.metadata_props}
    images = {
        onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
        for value in (*model.graph.input, *model.graph.output)
    }
    if properties.get(ENTRY) != metadata.to_json() or images != {metadata.input.dtype}:
        raise BadInput(f"expected {metadata.input.dtype} images and our metadata, found {images}: report it to us.")
    return Counter(node.op_type for node in model.graph.node)


def main(
    student: Path,
    *,
    precision: Precision | None = None,
    out: Path | None = None,
    calibration: str | None = None,
    force: bool = False,
) -> None:
    """Exports a student to ONNX.

    Args:
        student: student.pt, float or int8.
        precision: float32, float16, int8 or int8-weights; left out, that of the student.
        out: the .onnx to write; left out, the student's name with the precision, beside it.
        calibration: folder of photographs, or 'skimage', to quantize a float student with; the int8 student is then
            written beside the .onnx, for parity checks.
        force: replace an existing file.
    """
    order = take_order(
        student, precision=precision, known=KNOWN, out=out, suffix=".onnx", calibration=calibration, force=force
    )
    written = export_onnx(order.student, order.target, order.precision)
    print(written.summary())
    print(f"check it: python -m runtime.parity STUDENT.pt {written.path}")


if __name__ == "__main__":
    command_line(main)
