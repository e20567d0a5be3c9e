"""Core ML: runs .mlpackage files on macOS, and evaluates their operators one by one elsewhere."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.errors import BadInput
from export.metadata import ENTRY, Metadata
from export.mlpackage import import_coremltools
from runtime.engines.base import Delegate, Description, Engine, Image, Raw, check_metadata

EVALUATION = "reference evaluation of the Core ML file"


class CoremlEngine(Engine):
    """An .mlpackage: in Core ML on macOS; elsewhere its operators in PyTorch (`export.mil`).

    Args:
        path: of the package.
        threads: of PyTorch, where that evaluates it; Core ML chooses its own.

    Raises:
        BadInput: see `runtime.engines.open_model`.
    """

    def __init__(self, path: str | Path, threads: int = 1):
        from export.mil import read_program

        path = Path(path)
        coremltools = preload()
        spec, self._program = read_program(path)
        written = spec.description.metadata.userDefined.get(ENTRY)
        if written is None:
            raise BadInput(
                f"expected an .mlpackage that pocketsr exported, found one without its metadata in {path}: export the "
                "student with `python -m export.coreml`."
            )
        metadata = Metadata.from_json(written, str(path))
        check_metadata(metadata, path)
        _check_pictures(spec, metadata, path)
        super().__init__(path, metadata, threads)
        operations = self._program.functions["main"].operations
        self._operators = Counter(op.op_type for op in operations if op.op_type != "const")
        self._native: Any = None
        self._version = f"{EVALUATION}, coremltools {coremltools.__version__}"
        if sys.platform == "darwin":
            self._native = coremltools.models.MLModel(str(path))
            self._version = f"coremltools {coremltools.__version__}"
        self._lr: NDArray[np.float32] | None = None
        self._sr: Raw | None = None

    def describe(self) -> Description:
        return Description(
            path=self.path,
            engine="coreml",
            version=self._version,
            threads=self.threads,
            metadata=self.metadata,
            delegate=Delegate(operators=self._operators),
            native=self._native is not None,
        )

    def prepare(self, lr: Image) -> None:
        self._lr = np.ascontiguousarray(lr.transpose(2, 0, 1)[None], np.float32)

    def run(self) -> None:
        assert self._lr is not None, "prepare comes first"
        self._sr = self._predicted(self._lr) if self._native else self._evaluated(self._lr)

    def read(self) -> Raw:
        assert self._sr is not None, "run comes first"
        return self._sr

    def _evaluated(self, lr: NDArray[np.float32]) -> Raw:
        from export.mil import values
        from runtime.engines.pytorch import torch_threads

        with torch_threads(self.threads):
            *_, (_, sr) = values(self._program, lr)
        return np.ascontiguousarray(sr[0].permute(1, 2, 0).numpy().clip(0, 255).astype(np.uint8))

    def _predicted(self, lr: NDArray[np.float32]) -> Raw:
        from PIL import Image as Pillow

        picture = Pillow.fromarray(lr[0].transpose(1, 2, 0).astype(np.uint8))
        return np.array(self._native.predict({"lr": picture})["sr"].convert("RGB"))


def preload() -> Any:
    """coremltools' module. Raises Unavailable where it is not installed."""
    return import_coremltools()


def _check_pictures(spec: Any, metadata: Metadata, path: Path) -> None:
    """Holds the package's own description of its images against its metadata."""
    ends = (*spec.description.input, *spec.description.output)
    kinds = [one.type.WhichOneof("Type") for one in ends]
    if kinds != ["imageType", "imageType"] or (metadata.input.dtype, metadata.output.dtype) != ("uint8", "uint8"):
        raise BadInput(
            f"expected one picture in and one out, of uint8 pixels, found {', '.join(kinds)} and metadata that says "
            f"{metadata.input.dtype} and {metadata.output.dtype} in {path}: export it again."
        )
    colors = {one.type.imageType.colorSpace for one in ends}
    if len(colors) != 1 or next(iter(colors)) != type(ends[0].type.imageType).ColorSpace.Value("RGB"):
        raise BadInput(f"expected RGB pictures, found another colour space in {path}: export it again.")
