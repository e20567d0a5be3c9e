"""PyTorch: runs a student.pt, as the reference that exported files are held against."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from compress.checkpoint import VALUE_RANGE, Student, load_student, save_student
from compress.quantization.scheme import PIXELS
from export.metadata import INTEGER, Metadata
from export.metadata import Image as ImageSpec
from runtime.engines.base import Delegate, Description, Engine, Image, Raw, from_pixels, peak_of_file

REAL = ImageSpec(dtype="float32", layout="NCHW")


class PytorchEngine(Engine):
    """A student's reference on the CPU: the float network, or the integer arithmetic of an int8 student.

    Args:
        student: float or int8.
        path: where it was read from, for messages.
        threads: of torch, while this engine runs.
        network: run in place of the student's own; (N, 3, H, W) in [0, 1] to (N, 3, s*H, s*W) in [0, 1].

    Raises:
        BadInput: an int8 student of an architecture that does not fit the deploy graph.
    """

    def __init__(
        self,
        student: Student,
        path: str | Path = "student.pt",
        threads: int = 1,
        network: torch.nn.Module | None = None,
    ):
        super().__init__(Path(path), metadata_of(student), threads)
        self._student, self._replaced = student, network is not None
        self._network = (network or student.reference()).eval()
        self._lr: torch.Tensor | None = None
        self._sr: torch.Tensor | None = None

    @classmethod
    def open(cls, path: str | Path, threads: int = 1) -> "PytorchEngine":
        """Reads a student.pt. Raises BadInput; see `compress.checkpoint.load_student`."""
        return cls(load_student(path), path, threads)

    def describe(self) -> Description:
        return Description(
            path=self.path,
            engine="pytorch",
            version=f"torch {torch.__version__}",
            threads=self.threads,
            metadata=self.metadata,
            delegate=Delegate(),
        )

    def peak_memory(self, height: int, width: int) -> int | None:
        """As of every engine, of the student as it is here, whatever file it was read from; None for another network."""
        if self._replaced:
            return None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "student.pt"
            save_student(self._student, path)
            return peak_of_file(path, "pytorch", height, width, self.threads)

    def prepare(self, lr: Image) -> None:
        x = torch.from_numpy(from_pixels(lr, REAL)).permute(2, 0, 1)[None]
        self._lr = x.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run(self) -> None:
        assert self._lr is not None, "prepare comes first"
        with torch_threads(self.threads):
            self._sr = self._network(self._lr)

    def read(self) -> Raw:
        assert self._sr is not None, "run comes first"
        sr = np.ascontiguousarray(self._sr[0].permute(1, 2, 0).numpy(), dtype=np.float32)
        if self.metadata.precision in INTEGER:
            return (np.rint(sr * 255) - 128).astype(np.int8)
        return sr


def metadata_of(student: Student) -> Metadata:
    """A student described as an exported file describes itself."""
    integer = student.quantization is not None
    image = ImageSpec("int8", "NCHW", "RGB", PIXELS.scale, PIXELS.zero_point) if integer else REAL
    network = student.network()
    return Metadata(
        architecture=student.architecture,
        scale=student.scale,
        precision=student.quantization.precision if student.quantization else "float32",
        value_range=VALUE_RANGE,
        input=image,
        output=image,
        receptive_radius=network.deploy().receptive_radius() if student.has_graph else None,
        sizes="any",
        student_sha256=student.file_hash or "",
        quality=student.metrics,
        calibration=dict(student.quantization.calibration) if student.quantization else None,
        producer={"torch": str(torch.__version__)},
    )


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Torch's number of threads is the process's; it is put back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
