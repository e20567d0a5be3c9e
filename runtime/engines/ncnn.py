"""ncnn: runs a .param with its .bin on the processor, as the desktop upscalers do on Vulkan."""

import importlib
import importlib.metadata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import BadInput, Unavailable
from export.chatter import silenced
from export.metadata import read_ncnn
from runtime.engines.base import Delegate, Description, Engine, Image, Raw, check_metadata, from_pixels


class NcnnEngine(Engine):
    """A .param and its .bin in ncnn, on the processor.

    A float32 file is computed in float32, a float16 one as ncnn does by default: values are kept as float16, and added up
    in it where the processor can.

    Args:
        path: of the .param.
        threads: of ncnn.

    Raises:
        BadInput: see `runtime.engines.open_model`.
    """

    def __init__(self, path: str | Path, threads: int = 1):
        path = Path(path)
        metadata, self._blobs = read_ncnn(path)
        check_metadata(metadata, path)
        super().__init__(path, metadata, threads)
        self._library = preload()
        self._net = self._library.Net()
        options = self._net.opt
        options.num_threads, options.use_vulkan_compute = threads, False
        if metadata.precision == "float32":
            options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
        with silenced():
            loaded = not self._net.load_param(str(path)) and not self._net.load_model(str(path.with_suffix(".bin")))
        if not loaded:
            raise BadInput(
                f"expected a .param that ncnn can run, found one that it refuses in {path}: export it again."
            )
        self._lr: Any = None
        self._sr: Any = None

    def file_bytes(self) -> int:
        return sum(self.path.with_suffix(suffix).stat().st_size for suffix in (".param", ".bin", ".json"))

    def describe(self) -> Description:
        lines = self.path.read_text(encoding="utf-8").splitlines()[2:]
        return Description(
            path=self.path,
            engine="ncnn",
            version=f"ncnn {importlib.metadata.version('ncnn')}",
            threads=self.threads,
            metadata=self.metadata,
            delegate=Delegate(operators=Counter(line.split()[0] for line in lines)),
        )

    def prepare(self, lr: Image) -> None:
        planes = np.ascontiguousarray(from_pixels(lr, self.metadata.input).transpose(2, 0, 1))
        self._lr = self._library.Mat(planes).clone()  # a Mat of an array only points at it

    def run(self) -> None:
        extractor = self._net.create_extractor()
        extractor.input(self._blobs[0], self._lr)
        failed, self._sr = extractor.extract(self._blobs[1])
        if failed:
            raise BadInput(
                f"expected blobs {' and '.join(self._blobs)}, as the metadata says, found that ncnn gives none from {self.path}: "
                "export it again."
            )

    def read(self) -> Raw:
        return np.array(np.asarray(self._sr).transpose(1, 2, 0), order="C")


def preload() -> Any:
    """ncnn's module. Raises Unavailable where it is not installed."""
    try:
        return importlib.import_module("ncnn")
    except ModuleNotFoundError as error:
        raise Unavailable("expected ncnn to run a .param, found it missing: pip install 'pocketsr[ncnn]'.") from error
