"""`python -m export.tflite student.pt`: a student as a .tflite that phones run, audited after it is written."""

import functools
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compress.checkpoint import Student
from compress.cli import command_line
from compress.errors import BadInput
from compress.files import written_atomically
from export.audit import Audit, audit_tflite
from export.chatter import logged
from export.culprit import converted
from export.exporting import FIXED_SIZE, ExportedFile, check_masks, describe, has_masks, parts, sizes_of
from export.flatbuffer import add_metadata, parse, rename, serialize, set_image_type, set_integer_weights
from export.metadata import INTEGER, PixelType, Precision, Sizes
from export.order import parse_sizes, take_order
from export.price import price
from export.sparse.report import compare, print_comparisons
from export.sparse.tflite import check_tensorflow, sparsified

KNOWN: tuple[Precision, ...] = ("float32", "float16", "int8", "int16x8", "mixed", "int8-dynamic")
SPARSE: tuple[Precision, ...] = ("float32", "float16", "int8")
REASONS: Mapping[str, str] = {
    "int8-weights": "TFLite computes int8 weights on activations of dynamic range, so ask for int8-dynamic"
}
PRODUCERS = ("torch", "litert-torch", "litert-converter", "ai-edge-litert")
WRITTEN_BY_US = ("torch", "ai-edge-litert")  # int16x8 and mixed


@dataclass(frozen=True)
class TfliteFile(ExportedFile):
    """A .tflite and what was found in it."""

    audit: Audit


def export_tflite(
    student: Student,
    path: str | Path,
    precision: Precision,
    *,
    sizes: Sizes | None = None,
    images: PixelType | None = None,
    sparse: bool = False,
) -> TfliteFile:
    """Writes a student as a .tflite, NHWC, RGB, with metadata inside.

    Args:
        student: saved or loaded, so that its file's hash is known; an int8 one for integers, any other precision is
            exported from the float weights.
        path: of the file. What the converter prints goes to a .log beside it.
        precision: 'float32'; 'float16' (weights; images and arithmetic stay float32 unless the phone chooses
            otherwise); 'int8' (weights, activations, and images: pixel - 128); 'int16x8' (the same with 16-bit
            activations; images stay int8) and 'mixed', for students of that arithmetic; 'int8-dynamic' (weights; what
            enters a convolution is quantized by its own extremes while it runs, the rest stays float32).
        sizes: (height, width) of LR images; the file is opened with the first. None is any size, opened with 64x64,
            where the network allows it, and else 64x64 alone.
        images: 'int8', 'uint8' or 'float32' at both ends of a file of integers; None is int8, without any conversion.
        sparse: encode weights of which at least 30 % is zero as sparse; see `export.sparse.tflite`.

    Raises:
        BadInput: a float student for integers, integers or sizes that the network does not have, an image type of a
            float file, a converter that fails, a written file that the audit refuses, or for `sparse` a student
            without masks, 'int8-dynamic' or TensorFlow missing; nothing is written then.
    """
    if sparse:
        check_masks(student)
        refuse_sparse(precision)
        check_tensorflow()
    path = Path(path)
    if images not in (None, "float32") and precision not in INTEGER:
        raise BadInput(f"expected float32 images of a {precision} file, found {images}: only int8 files take integers.")
    shown: PixelType = images or "int8"
    producers = WRITTEN_BY_US if precision in ("int16x8", "mixed") else PRODUCERS
    metadata = describe(
        student, precision, layout="NHWC", producers=producers, pixels=shown, sizes=sizes_of(student, sizes)
    )
    if student.has_graph:
        parts(student, precision)  # refuses before any work is done
    log = path.with_suffix(".log")
    log.unlink(missing_ok=True)
    with logged(log, f"{path.name}"):
        model = parse(_converted(student, precision, metadata.sizes))
        if precision == "int8-dynamic":
            assert student.quantization is not None
            set_integer_weights(model, student.quantization.layers.values())
        if sparse:
            model = parse(sparsified(serialize(model)))
        rename(model, student.deploy() if student.has_graph else None)
        if precision in INTEGER and shown != "int8":
            set_image_type(model, shown)
        add_metadata(model, metadata)
        content = serialize(model)
    with written_atomically(path) as part:
        part.write_bytes(content)
        audit = audit_tflite(part)
        faults = audit.faults(precision, shown)
        if student.has_graph and not audit.resizable:
            faults.append("a size that is baked in")
        if faults:
            raise BadInput(
                f"expected a clean {precision} file, found {'; '.join(faults)}: see {log}, and report it to us."
            )
    return TfliteFile(path, metadata, audit.operators, audit)


def refuse_sparse(precision: Precision) -> None:
    """Raises BadInput for a precision without a sparse form."""
    if precision not in SPARSE:
        raise BadInput(
            f"expected a precision out of {', '.join(SPARSE)} for a sparse .tflite, found {precision}: leave --sparse out, "
            "for XNNPACK refuses convolutions of dynamic range whose weights were sparse, and 16-bit files are written dense."
        )


def _converted(student: Student, precision: Precision, sizes: Sizes) -> bytes:
    """The flatbuffer as the converter writes it, or we do."""
    if not student.has_graph:
        from export.lowering.tflite_fixed import tflite_fixed

        return _convert(tflite_fixed(student.fixed(*_example(sizes))), precision, sizes)
    graph, quantization = parts(student, precision)
    if precision in ("int16x8", "mixed"):
        from export.lowering.tflite_mixed import mixed_tflite

        assert quantization is not None
        height, width = _example(sizes)
        return mixed_tflite(graph, quantization, (height, width))
    from export.lowering.tflite import TfliteGraph

    integers = quantization if precision == "int8" else None
    return converted(graph, lambda part: _convert(TfliteGraph(part, integers), precision, sizes))


def _example(sizes: Sizes) -> list[int]:
    return FIXED_SIZE if sizes == "any" else sizes[0]


def _convert(module: nn.Module, precision: Precision, sizes: Sizes) -> bytes:
    """The flatbuffer as litert-torch writes it."""
    import litert_torch
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig

    for tensor in (*module.parameters(), *module.buffers()):
        # litert-torch 0.10 knows constants by the address of a contiguous copy, which it frees: others may follow there
        tensor.data = tensor.data.contiguous()
    channels_last = litert_torch.to_channel_last_io(module.eval(), args=[0], outputs=[0]).eval()
    options: dict[str, Any] = {}
    if precision == "int8":  # the graph has its quantizers already; this only tells the converter to fold them
        scheme = get_symmetric_quantization_config(is_per_channel=True, is_qat=True)
        options["quant_config"] = QuantConfig(pt2e_quantizer=PT2EQuantizer().set_global(scheme))
    model = litert_torch.convert(channels_last, (torch.zeros(1, *_example(sizes), 3),), **options)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "student.tflite"
        model.export(str(file))
        return _float16(file) if precision == "float16" else file.read_bytes()


def _float16(file: Path) -> bytes:
    """The float32 file with its weights stored as float16."""
    from ai_edge_quantizer import qtyping, quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    casting, names = quantizer.Quantizer(str(file)), qtyping.TFLOperationName
    for kind in (names.CONV_2D, names.DEPTHWISE_CONV_2D, names.FULLY_CONNECTED):
        casting.add_weight_only_config(
            regex=".*", operation_name=kind, num_bits=16, algorithm_key=AlgorithmName.FLOAT_CASTING
        )
    return bytes(casting.quantize().quantized_model)


def main(
    student: Path,
    *,
    precision: Precision | None = None,
    out: Path | None = None,
    size: str | None = None,
    images: PixelType | None = None,
    calibration: str | None = None,
    sparse: bool = False,
    force: bool = False,
) -> None:
    """Exports a student to TFLite.

    Args:
        student: student.pt, float or int8.
        precision: float32, float16, int8, int16x8 (16-bit values: exact, and slow on CPUs), mixed, or int8-dynamic (int8
            weights, activations of dynamic range); left out, that of
            the student.
        out: the .tflite to write; left out, the student's name with the precision, beside it.
        size: 'any', or sizes of the LR image as HEIGHTxWIDTH, several with commas between them; left out, any where the
            network allows it, else 64x64. A file opens with the first, or with 64x64, and is resized to the others.
        images: type of the pixels of an int8 file: int8 (pixel - 128; the fastest), uint8 or float32.
        calibration: folder of photographs, or 'skimage', to quantize a float student with; the int8 student is then
            written beside the .tflite, for parity checks.
        sparse: store the zeros of a student with 2:4, block or other masks in TFLite's sparse encoding; needs TensorFlow.
        force: replace an existing file.
    """
    sizes = parse_sizes(size) if size else None
    if sparse:
        refuse_sparse(precision or "float32")
        check_tensorflow()
    order = take_order(
        student, precision=precision, known=KNOWN, out=out, suffix=".tflite", calibration=calibration, force=force,
        sparse=sparse, reasons=REASONS,
    )  # fmt: skip
    write = functools.partial(export_tflite, order.student, precision=order.precision, sizes=sizes, images=images)
    written = write(order.target, sparse=sparse)
    audit = written.audit
    floats = f", {len(audit.float_operators)} float operators" if order.precision in INTEGER else ""
    print(f"{written.summary()}; {audit.partitions} XNNPACK partition{floats}")
    if has_masks(order.student):
        print_comparisons([compare(order.student, written, write, sparse=sparse)])
    if order.precision in ("int16x8", "mixed"):
        print(price(order.student, written.path))
    print(f"check it: python -m runtime.parity STUDENT.pt {written.path}")


if __name__ == "__main__":
    command_line(main)
