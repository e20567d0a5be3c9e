"""What files of every precision are held against: PyTorch engines of one student."""

import dataclasses

from compress.checkpoint import Student
from export.exporting import reference_network
from export.metadata import INTEGER
from runtime.engines.base import Image, Result
from runtime.engines.pytorch import PytorchEngine


class References:
    """The networks that a student's files should compute; each is made once, and runs once per image.

    Attributes:
        student: float or int8.
        engine: of the float student, which latency, memory and quality are compared with.
    """

    def __init__(self, student: Student, threads: int):
        self.student, self.threads = student, threads
        self._floats = dataclasses.replace(student, quantization=None)
        self.engine = PytorchEngine(self._floats, threads=threads)
        self._engines = {"float32": self.engine, "float16": self.engine}
        self._results: dict[int, Result] = {}

    def prepare(self, precision: str) -> None:
        """Raises BadInput where the student cannot judge files of that precision."""
        if precision not in self._engines:
            owner = self.student if precision in INTEGER else self._floats
            network = reference_network(self.student, precision)
            self._engines[precision] = PytorchEngine(owner, threads=self.threads, network=network)

    def upscale(self, lr: Image) -> None:
        engines = {id(one): one for one in self._engines.values()}
        self._results = {key: one.upscale(lr) for key, one in engines.items()}

    def result(self, precision: str) -> Result:
        """Of the last image."""
        return self._results[id(self._engines[precision])]

    @property
    def floating(self) -> Image:
        """The float student's picture of the last image."""
        return self._results[id(self.engine)].image
