"""ONNX Runtime: runs .onnx files on the processor."""

import contextlib
import importlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import BadInput, Unavailable
from export.metadata import ENTRY, Metadata
from runtime.engines.base import (
    Delegate,
    Description,
    Engine,
    Image,
    Raw,
    check_dtype,
    check_metadata,
    check_threads,
    first_line,
    from_pixels,
)

TYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(int8)": "int8"}
ERRORS_ONLY = 3


class OnnxEngine(Engine):
    """An .onnx in an ONNX Runtime session on the processor.

    Args:
        path: of the file.
        threads: of the session.

    Raises:
        BadInput: see `runtime.engines.open_model`.
    """

    def __init__(self, path: str | Path, threads: int = 1):
        path = Path(path)
        if not path.is_file():
            raise BadInput(f"expected an .onnx file, found nothing at {path}: check the path.")
        check_threads(threads)  # the session starts them all
        runtime = preload()
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = ERRORS_ONLY
        options.enable_mem_pattern = False  # from the second image on it would keep one more block for all values
        with _refusals(path):
            self._session: Any = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            written = self._session.get_modelmeta().custom_metadata_map.get(ENTRY)
        if written is None:
            raise BadInput(
                f"expected an .onnx that pocketsr exported, found one without its metadata in {path}: export the student "
                "with `python -m export.onnx`."
            )
        metadata = Metadata.from_json(written, str(path))
        check_metadata(metadata, path)
        _check_tensors(self._session, metadata, path)
        super().__init__(path, metadata, threads)
        self._version = f"onnxruntime {runtime.__version__}"
        self._names = self._session.get_inputs()[0].name, self._session.get_outputs()[0].name
        self._lr: Raw | None = None
        self._sr: Raw | None = None

    def describe(self) -> Description:
        return Description(
            path=self.path,
            engine="onnxruntime",
            version=self._version,
            threads=self.threads,
            metadata=self.metadata,
            delegate=Delegate(operators=_operators(self.path)),
        )

    def prepare(self, lr: Image) -> None:
        self._sr = None  # its memory serves the next one
        self._lr = np.ascontiguousarray(from_pixels(lr, self.metadata.input).transpose(2, 0, 1)[None])

    def run(self) -> None:
        assert self._lr is not None, "prepare comes first"
        given, made = self._names
        with _refusals(self.path):
            (self._sr,) = self._session.run([made], {given: self._lr})

    def read(self) -> Raw:
        assert self._sr is not None, "run comes first"
        return np.array(self._sr[0].transpose(1, 2, 0), order="C")


def preload() -> Any:
    """ONNX Runtime's module. Raises Unavailable where it is not installed."""
    try:
        return importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        raise Unavailable(
            "expected ONNX Runtime to run an .onnx, found it missing: pip install onnxruntime."
        ) from error


def _operators(path: Path) -> Counter[str]:
    """The file's operators by name; none where the onnx package, which reads them, is not installed."""
    try:
        onnx = importlib.import_module("onnx")
    except ModuleNotFoundError:
        return Counter()
    return Counter(node.op_type for node in onnx.load(str(path)).graph.node)


def _check_tensors(session: Any, metadata: Metadata, path: Path) -> None:
    """Holds the session's own view of the file against its metadata."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise BadInput(
            f"expected one input and one output, found {len(inputs)} and {len(outputs)} in {path}: export it again."
        )
    for name, spec, tensor in (("input", metadata.input, inputs[0]), ("output", metadata.output, outputs[0])):
        check_dtype(name, spec, TYPES.get(tensor.type, tensor.type), path)
        if spec.layout != "NCHW" or len(tensor.shape) != 4 or tensor.shape[1] != 3:
            raise BadInput(
                f"expected an {name} of shape (N, 3, H, W) and the layout NCHW, found {tensor.shape} and {spec.layout} in "
                f"{path}: export it again."
            )


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """What ONNX Runtime refuses, as a sentence: its errors have no base class of their own but their module.

    Damaged names, in the file or in what is said about them, are UnicodeDecodeErrors."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime") and not isinstance(error, UnicodeDecodeError):
            raise
        raise BadInput(
            f"expected an .onnx that ONNX Runtime can run, found one that it refuses in {path} ({first_line(error)}): "
            "export it again."
        ) from error
