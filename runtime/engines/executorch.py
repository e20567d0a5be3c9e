"""ExecuTorch: runs .pte files on the processor, through XNNPACK as far as the file says."""

import contextlib
import importlib
import importlib.metadata
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import BadInput, Unavailable
from export.chatter import silenced
from export.metadata import Metadata
from export.pte import DTYPES, METADATA, method_names, read_pte
from runtime.engines.base import (
    Delegate,
    Description,
    Engine,
    Image,
    Raw,
    check_dtype,
    check_metadata,
    first_line,
    from_pixels,
)

MAGIC = b"ET"  # and the version, at byte 4


class ExecutorchEngine(Engine):
    """A .pte in ExecuTorch's runtime for Python.

    Its pool of threads is the process's. Who changes it takes it away from the methods that are loaded, so every engine
    loads its own again when the number of threads is not its own.

    Args:
        path: of the file.
        threads: of the pool while this engine runs.

    Raises:
        BadInput: see `runtime.engines.open_model`.
    """

    def __init__(self, path: str | Path, threads: int = 1):
        path = Path(path)
        if not path.is_file():
            raise BadInput(f"expected a .pte file, found nothing at {path}: check the path.")
        with path.open("rb") as file:
            if file.read(8)[4:6] != MAGIC:
                raise BadInput(f"expected a .pte file, found some other kind of file in {path}: check the path.")
        self._runtime = preload()
        super().__init__(path, _metadata(self._program(path), path), threads)
        check_metadata(self.metadata, path)
        self._names = method_names(self.metadata.sizes)
        _check_methods(self._program(path), self._names, self.metadata, path)
        self._methods: dict[str, Any] = {}
        self._pool = 0
        self._load(next(iter(self._names.values())))
        self._name, self._lr, self._sr = "", np.empty(0), np.empty(0)

    def describe(self) -> Description:
        method = next(iter(read_pte(self.path).values()))
        return Description(
            path=self.path,
            engine="executorch",
            version=f"executorch {importlib.metadata.version('executorch')}",
            threads=self.threads,
            metadata=self.metadata,
            delegate=Delegate(
                name="XNNPACK" if method.delegates else "none",
                operators=method.inside + method.outside,
                partitions=method.delegates,
                outside=method.outside,
            ),
        )

    def prepare(self, lr: Image) -> None:
        self._name = self._names[None if self.metadata.sizes == "any" else (lr.shape[0], lr.shape[1])]
        self._lr = np.ascontiguousarray(from_pixels(lr, self.metadata.input).transpose(2, 0, 1)[None])
        self._load(self._name)

    def run(self) -> None:
        method = self._load(self._name)
        with _refusals(self.path):
            (made,) = method.execute([_tensor(self._lr)])
        self._sr = made.numpy()

    def read(self) -> Raw:
        return np.array(self._sr[0].transpose(1, 2, 0), order="C")

    def _load(self, name: str) -> Any:
        """The method, on a pool of this engine's threads."""
        if self._pool != _pool.number or _pool.threads != self.threads:
            self._methods.clear()
            _pool.resize(self.threads)
            self._pool = _pool.number
        if name not in self._methods:
            with _refusals(self.path), silenced():
                self._methods[name] = self._program(self.path).load_method(name)
        return self._methods[name]

    def _program(self, path: Path) -> Any:
        with _refusals(path), silenced():
            return self._runtime.load_program(path)


class _Pool:
    """The process's pool of threads: how many, and the how-manieth it is."""

    def __init__(self) -> None:
        self.number = self.threads = 0

    def resize(self, threads: int) -> None:
        if threads != self.threads:
            library = importlib.import_module("executorch.extension.pybindings.portable_lib")
            with silenced():
                library._unsafe_reset_threadpool(threads)
            self.number, self.threads = self.number + 1, threads


_pool = _Pool()


def preload() -> Any:
    """ExecuTorch's runtime. Raises Unavailable where it is not installed."""
    try:
        with warnings.catch_warnings(), silenced():
            warnings.simplefilter("ignore")
            runtime = importlib.import_module("executorch.runtime").Runtime.get()
            importlib.import_module("executorch.exir._serialize._program")
    except ModuleNotFoundError as error:
        raise Unavailable(
            "expected ExecuTorch to run a .pte, found it missing: pip install 'pocketsr[executorch]'."
        ) from error
    return runtime


def _tensor(array: Raw) -> Any:
    import torch  # ExecuTorch's Python runtime takes its tensors

    return torch.from_numpy(array)


def _metadata(program: Any, path: Path) -> Metadata:
    if METADATA not in program.method_names:
        raise BadInput(
            f"expected a .pte that pocketsr exported, found one without its metadata in {path}: export the student with "
            "`python -m export.executorch`."
        )
    with _refusals(path), silenced():
        (written,) = program.load_method(METADATA).execute([])
    return Metadata.from_json(written, str(path))


def _check_methods(program: Any, names: dict[Any, str], metadata: Metadata, path: Path) -> None:
    """Holds the runtime's own view of the file against its metadata."""
    if missing := set(names.values()) - program.method_names:
        raise BadInput(
            f"expected the method {sorted(missing)[0]}, as the metadata says, found {', '.join(sorted(program.method_names))} "
            f"in {path}: export it again."
        )
    for size, name in names.items():
        meta = program.metadata(name)
        height, width = size or (metadata.largest, metadata.largest)
        for spec, tensor, factor, which in (
            (metadata.input, meta.input_tensor_meta(0), 1, "input"),
            (metadata.output, meta.output_tensor_meta(0), metadata.scale, "output"),
        ):
            dtype, shape = DTYPES.get(tensor.dtype(), "another type"), tuple(tensor.sizes())
            check_dtype(which, spec, dtype, path)
            if spec.layout != "NCHW" or shape != (1, 3, (height or 0) * factor, (width or 0) * factor):
                raise BadInput(
                    f"expected an {which} of shape (1, 3, {height}*{factor}, {width}*{factor}) and the layout NCHW, found "
                    f"{shape} and {spec.layout} in {path}: export it again."
                )


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """What ExecuTorch refuses, as a sentence."""
    try:
        yield
    except RuntimeError as error:
        raise BadInput(
            f"expected a .pte that ExecuTorch can run, found one that it refuses in {path} ({first_line(error)}): "
            "export it again."
        ) from error
