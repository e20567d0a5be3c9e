"""The formats by name: what each writes, and where it does not, why."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from compress.errors import BadInput
from export import coreml, executorch, ncnn, onnx, tflite
from export.exporting import ExportedFile
from export.metadata import Precision

EVERY: tuple[Precision, ...] = ("float32", "float16", "int8", "int8-weights", "int8-dynamic")
"""Precisions that a float student and photographs give, or an int8 student alone."""


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        suffix: of its name.
        precisions: that it has, and `reasons` why not for others.
        write: (student, path, precision, sizes=...), and `sparse=True` for the precisions `sparse`.
        command: the exporter's own.
        require: raises BadInput where its packages are not installed.
    """

    suffix: str
    precisions: tuple[Precision, ...]
    reasons: Mapping[str, str]
    write: Callable[..., ExportedFile]
    command: Callable[..., None]
    sparse: tuple[Precision, ...] = ()
    require: Callable[[], None] = lambda: None

    @property
    def installed(self) -> bool:
        try:
            self.require()
        except BadInput:
            return False
        return True


FORMATS = {
    "tflite": Format(".tflite", tflite.KNOWN, tflite.REASONS, tflite.export_tflite, tflite.main, sparse=tflite.SPARSE),
    "onnx": Format(".onnx", onnx.KNOWN, onnx.REASONS, onnx.export_onnx, onnx.main, sparse=onnx.KNOWN),
    "coreml": Format(
        ".mlpackage", coreml.KNOWN, coreml.REASONS, coreml.export_coreml, coreml.main, sparse=coreml.KNOWN
    ),
    "executorch": Format(
        ".pte",
        executorch.KNOWN,
        executorch.REASONS,
        executorch.export_executorch,
        executorch.main,
        require=executorch.require_executorch,
    ),
    "ncnn": Format(".param", ncnn.KNOWN, ncnn.REASONS, ncnn.export_ncnn, ncnn.main, require=ncnn.require_ncnn),
}
