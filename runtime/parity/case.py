"""One file on one engine, from opening it to its verdict."""

import time
from collections.abc import Callable, Sequence

from compress.checkpoint import Student
from compress.errors import BadInput
from export.exporting import QUANTIZED, check_precision
from runtime.engines import open_model
from runtime.engines.base import Engine, Image, to_real
from runtime.latency import Latency
from runtime.parity import labels
from runtime.parity.agreement import Tally
from runtime.parity.diagnosis import diagnose
from runtime.parity.judge import costing, differing, losing
from runtime.parity.limits import Limits, Policy, limits_for
from runtime.parity.quality import Scores
from runtime.parity.references import References
from runtime.parity.results import FileParity, SetLoss
from runtime.selection import Choice

BISECTED = (".tflite", ".onnx", ".mlpackage")


class Case:
    """One file on one engine, from opening it to its verdict; `reason` says why it could not be judged.

    Args:
        name: that tells the file apart from the others.
    """

    def __init__(self, choice: Choice, name: str, policies: Sequence[Policy]):
        self.name = name
        self.path, self.engine, self._policies = choice.path, choice.engine, policies
        self.model: Engine | None = None
        self.reason: str | None = None
        self.limits = Limits()
        self.sets: list[SetLoss] = []
        self.latency: Latency | None = None
        self.result: FileParity | None = None
        self._tally, self._seconds = Tally(), 0.0

    def attempt(self, step: Callable[[], object]) -> bool:
        """Takes a step, unless one failed before; whether it did not fail."""
        if self.reason is not None:
            return False
        start = time.perf_counter()
        try:
            step()
        except BadInput as error:
            self.reason = str(error)
            self.close()
        self._seconds += time.perf_counter() - start
        return self.reason is None

    def close(self) -> None:
        """Gives back what the engine holds, on a device too."""
        if self.model:
            self.model.close()
        self.model = None

    def open(self, references: References, threads: int) -> None:
        self.model = open_model(self.path, engine=self.engine, threads=threads)
        _check_fits(self.model, references.student)
        precision = self.model.metadata.precision
        references.prepare(precision)
        self.limits = limits_for(self.path.suffix.lower()[1:], precision, self.engine, *self._policies)

    def see(self, lr: Image, hr: Image, references: References, scores: Scores) -> None:
        assert self.model is not None, "it was opened"
        result = self.model.upscale(lr)
        self._tally.add(result.raw, references.result(self.model.metadata.precision).raw)
        scores.add(result.image, hr)

    def conclude(
        self, references: References, lr: Image, pytorch: Latency, pytorch_peak: int | None, *, memory: bool
    ) -> None:
        """Weighs everything; `lr` is the image that the latencies were measured with."""
        assert self.model is not None, "it was opened"
        description, agreement, sets = self.model.describe(), self._tally.agreement(), tuple(self.sets)
        size = self.model.file_bytes()
        peak = self.model.peak_memory(lr.shape[0], lr.shape[1]) if memory else None
        apart = list(differing(agreement, description.precision, self.limits))
        failures = [
            *labels.faults(self.path, description.metadata, references.student),
            *apart,
            *losing(sets, self.limits),
            *costing(size, self.latency, peak, pytorch, pytorch_peak, self.limits, native=description.native),
        ]
        self.result = FileParity(
            name=self.name,
            engine=self.engine,
            description=description,
            file_bytes=size,
            limits=self.limits,
            agreement=agreement,
            sets=sets,
            latency=self.latency,
            peak_bytes=peak,
            failures=tuple(failures),
            advice=self._advice(references, lr) if apart else None,
            seconds=self._seconds,
        )

    def _advice(self, references: References, lr: Image) -> str | None:
        assert self.model is not None, "it was opened"
        references.upscale(lr)
        expected = references.result(self.model.metadata.precision).raw
        known = diagnose(to_real(self.model.upscale(lr).raw), to_real(expected), self.model.scale)
        if known:
            return known
        if self.path.suffix.lower() in BISECTED:
            return f"`python -m export.bisect STUDENT.pt {self.path}` names the first layer that differs"
        return None


def _check_fits(engine: Engine, student: Student) -> None:
    """Raises BadInput for a file that cannot be compared with the student at all."""
    if engine.scale != student.scale:
        raise BadInput(
            f"expected a file of the student's scale x{student.scale}, found x{engine.scale} in {engine.path}: "
            "give the student.pt that it was exported from."
        )
    if engine.metadata.precision in QUANTIZED and student.quantization is None:
        raise BadInput(
            f"expected the int8 student of the int8 file {engine.path}, found a float student: give the int8 "
            "student.pt that the export wrote beside the file."
        )
    if student.quantization:
        check_precision(student.quantization, engine.metadata.precision)
