"""`python -m export.onnx student.pt`: a student as an .onnx for ONNX Runtime, TensorRT, OpenVINO or QNN."""

import functools
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from compress.checkpoint import Student
from compress.cli import command_line
from compress.errors import BadInput
from compress.files import written_atomically
from export.chatter import logged
from export.culprit import converted
from export.exporting import ExportedFile, describe, has_masks, parts, sizes_of
from export.metadata import ENTRY, Metadata, Precision, Sizes
from export.order import parse_sizes, take_order
from export.sparse.masked import masked_steps
from export.sparse.onnx import sparsified
from export.sparse.report import compare, print_comparisons

KNOWN: tuple[Precision, ...] = ("float32", "float16", "int8", "int16x8", "mixed", "int8-weights")
REASONS: Mapping[str, str] = {
    "int8-dynamic": "only TFLite has convolutions of dynamic range on phones, so ask for int8-weights"
}
PRODUCERS = ("torch", "onnx", "onnxsim")
NAME = "pocketsr"


def export_onnx(
    student: Student, path: str | Path, precision: Precision, *, sizes: Sizes | None = None, sparse: bool = False
) -> ExportedFile:
    """Writes a student as an .onnx, NCHW, RGB, with metadata inside.

    Args:
        student: saved or loaded, so that its file's hash is known; an int8 one for 'int8' and 'int8-weights'.
        path: of the file.
        precision: 'float32'; 'float16' (weights and arithmetic; images stay float32); 'int8' (QDQ: weights int8,
            values and images uint8, the student's integers plus 128); 'int16x8' and 'mixed' (the same for students of
            that arithmetic; int16 values need opset 21); 'int8-weights' (arithmetic stays float32).
        sizes: (height, width) of LR images; one is baked in, for one image. None is any number of images of any size,
            where the network allows it, and else 64x64.
        sparse: store masked weights as sparse initializers, which is often larger; see `export.sparse.onnx`.

    Raises:
        BadInput: a float student for integers, integers or sizes that the network does not have, a file that the
            checker refuses, or for `sparse` a student without masks; nothing is written then.
    """
    path = Path(path)
    metadata = describe(
        student, precision, layout="NCHW", producers=PRODUCERS, pixels="uint8", sizes=sizes_of(student, sizes)
    )
    write = _writer(student, precision, metadata.sizes)
    steps = masked_steps(student) if sparse else frozenset()
    log = path.with_suffix(".log")
    log.unlink(missing_ok=True)
    with logged(log, path.name):
        model = _simplified(write())
        if sparse:
            model = sparsified(model, steps)
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


def _writer(student: Student, precision: Precision, sizes: Sizes) -> Callable[[], Any]:
    """What makes the model; raises BadInput as `parts` does before any work is done."""
    if student.has_graph:
        from export.lowering.onnx import onnx_model

        graph, quantization = parts(student, precision)
        return lambda: converted(graph, lambda part: onnx_model(part, quantization, precision, sizes))
    from export.lowering.onnx_fixed import onnx_fixed

    size = sizes[0]
    assert not isinstance(size, str)
    return lambda: onnx_fixed(student.fixed(*size), precision, size)


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
    size: str | None = None,
    calibration: str | None = None,
    sparse: bool = False,
    force: bool = False,
) -> None:
    """Exports a student to ONNX.

    Args:
        student: student.pt, float or int8.
        precision: float32, float16, int8, int16x8, mixed or int8-weights; left out, that of the student.
        out: the .onnx to write; left out, the student's name with the precision, beside it.
        size: 'any', or sizes of the LR image as HEIGHTxWIDTH, several with commas between them; left out, any where the
            network allows it, else 64x64. One size is baked in, which NPUs ask for.
        calibration: folder of photographs, or 'skimage', to quantize a float student with; the int8 student is then
            written beside the .onnx, for parity checks.
        sparse: store the zeros of a student with 2:4, block or other masks as sparse initializers; often larger.
        force: replace an existing file.
    """
    order = take_order(
        student, precision=precision, known=KNOWN, out=out, suffix=".onnx", calibration=calibration, force=force,
        sparse=sparse, reasons=REASONS,
    )  # fmt: skip
    sizes = parse_sizes(size) if size else None
    write = functools.partial(export_onnx, order.student, precision=order.precision, sizes=sizes)
    written = write(order.target, sparse=sparse)
    print(written.summary())
    if has_masks(order.student):
        print_comparisons([compare(order.student, written, write, sparse=sparse)])
    print(f"check it: python -m runtime.parity STUDENT.pt {written.path}")


if __name__ == "__main__":
    command_line(main)
