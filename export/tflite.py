"""`python -m export.tflite student.pt`: a student as a .tflite that phones run, audited after it is written."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from compress.checkpoint import Student
from compress.cli import command_line
from compress.deploy import DeployGraph
from compress.errors import BadInput
from compress.files import written_atomically
from compress.quantization.scheme import Quantization
from export.audit import Audit, audit_tflite, operator_name
from export.chatter import logged
from export.exporting import ExportedFile, describe, parse_sizes, parts, take_order
from export.metadata import ENTRY, Metadata, Precision

Size = tuple[int, int]
DEFAULT_SIZE = (64, 64)
KNOWN: tuple[Precision, ...] = ("float32", "float16", "int8")
PRODUCERS = ("torch", "litert-torch", "litert-converter", "ai-edge-litert")


@dataclass(frozen=True)
class TfliteFile(ExportedFile):
    """A .tflite and what was found in it."""

    audit: Audit


def export_tflite(student: Student, path: str | Path, precision: Precision, size: Size = DEFAULT_SIZE) -> TfliteFile:
    """Writes a student as a .tflite, NHWC, RGB, resizable to any image size, with metadata inside.

    Args:
        student: saved or loaded, so that its file's hash is known; an int8 one for precision 'int8', any other
            precision is exported from the float weights.
        path: of the file. What the converter prints goes to a .log beside it.
        precision: 'float32'; 'float16' (weights; images and arithmetic stay float32 unless the phone chooses
            otherwise); 'int8' (weights, activations, and images: pixel - 128).
        size: (height, width) of the LR image that the file is set to when it is opened.

    Raises:
        BadInput: a float student for int8, an architecture without a deploy form, a size that is none, a converter
            that fails, or a written file that the audit refuses; nothing is written then.
    """
    path = Path(path)
    if min(size) < 1:
        raise BadInput(f"expected a positive LR size, found {size[0]}x{size[1]}: use for example 64x64.")
    graph, quantization = parts(student, precision)
    metadata = describe(student, precision, layout="NHWC", producers=PRODUCERS)
    log = path.with_suffix(".log")
    log.unlink(missing_ok=True)
    with logged(log, f"{path.name}"):
        content = _converted(graph, quantization, precision, size)
    content = _with_metadata(content, metadata)
    with written_atomically(path) as part:
        part.write_bytes(content)
        audit = audit_tflite(part)
        faults = audit.faults(precision) + ([] if audit.resizable else ["a size that is baked in"])
        if faults:
            raise BadInput(
                f"expected a clean {precision} file, found {'; '.join(faults)}: see {log}, and report it to us."
            )
    return TfliteFile(path, metadata, audit.operators, audit)


def _converted(graph: DeployGraph, quantization: Quantization | None, precision: Precision, size: Size) -> bytes:
    """The flatbuffer as litert-torch writes it."""
    import litert_torch
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig

    from export.lowering.tflite import TfliteGraph

    lowered = TfliteGraph(graph, quantization).eval()
    channels_last = litert_torch.to_channel_last_io(lowered, args=[0], outputs=[0]).eval()
    options: dict[str, Any] = {}
    if quantization:  # the graph has its quantizers already; this only tells the converter to fold them
        scheme = get_symmetric_quantization_config(is_per_channel=True, is_qat=True)
        options["quant_config"] = QuantConfig(pt2e_quantizer=PT2EQuantizer().set_global(scheme))
    model = litert_torch.convert(channels_last, (torch.zeros(1, *size, 3),), **options)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "student.tflite"
        model.export(str(file))
        return _float16(file) if precision == "float16" else file.read_bytes()


def _float16(file: Path) -> bytes:
    """The float32 file with its weights stored as float16."""
    from ai_edge_quantizer import qtyping, quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    casting = quantizer.Quantizer(str(file))
    casting.add_weight_only_config(
        regex=".*",
        operation_name=qtyping.TFLOperationName.CONV_2D,
        num_bits=16,
        algorithm_key=AlgorithmName.FLOAT_CASTING,
    )
    return bytes(casting.quantize().quantized_model)


def _with_metadata(content: bytes, metadata: Metadata) -> bytes:
    """Adds the metadata buffer, and names the image tensors "lr" and "sr"."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(metadata.to_json().encode())
    entry.name, entry.buffer = ENTRY, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    _shorten_names(model, graph)
    graph.tensors[graph.inputs[0]].name, graph.tensors[graph.outputs[0]].name = "lr", "sr"
    signature.inputs[0].name, signature.outputs[0].name = "lr", "sr"
    model.description = f"PocketSR {metadata.architecture} x{metadata.scale} {metadata.precision}"
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _shorten_names(model: Any, graph: Any) -> None:
    """Names tensors after the operator that makes or holds them: "conv_2d_3", "conv_2d_3/1" for its second input."""
    made = {int(i) for operator in graph.operators for i in operator.outputs}
    for number, operator in enumerate(graph.operators):
        name = f"{operator_name(model, operator).lower()}_{number}"
        graph.tensors[operator.outputs[0]].name = name
        for position, index in enumerate(operator.inputs):
            if index not in made and index not in graph.inputs:
                graph.tensors[index].name = f"{name}/{position}"


def main(
    student: Path,
    *,
    precision: Precision | None = None,
    out: Path | None = None,
    size: str = "64x64",
    calibration: str | None = None,
    force: bool = False,
) -> None:
    """Exports a student to TFLite.

    Args:
        student: student.pt, float or int8.
        precision: float32, float16 or int8; left out, that of the student.
        out: the .tflite to write; left out, the student's name with the precision, beside it.
        size: HEIGHTxWIDTH of the LR image that the file is opened with; it can be resized to any other.
        calibration: folder of photographs, or 'skimage', to quantize a float student with; the int8 student is then
            written beside the .tflite, for parity checks.
        force: replace an existing file.
    """
    sizes = parse_sizes(size)
    if sizes == "any" or len(sizes) != 1:
        raise BadInput(f"expected one size like 64x64, found {size!r}: the file takes any other one too.")
    order = take_order(
        student, precision=precision, known=KNOWN, out=out, suffix=".tflite", calibration=calibration, force=force
    )
    written = export_tflite(order.student, order.target, order.precision, (sizes[0][0], sizes[0][1]))
    audit = written.audit
    floats = f", {len(audit.float_operators)} float operators" if order.precision == "int8" else ""
    print(f"{written.summary()}; {audit.partitions} XNNPACK partition{floats}")
    print(f"check it: python -m runtime.parity STUDENT.pt {written.path}")


if __name__ == "__main__":
    command_line(main)
