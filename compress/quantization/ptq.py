"""Post-training quantization: a float student and calibration crops give an int8 student.

Ranges, equalization, weights and biases are tried one after another, each in its ways, and what leaves the integer
student closest to the float one stays. What is fitted is fitted to some crops and judged on others.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compress.checkpoint import Student
from compress.deploy import Conv, DeployGraph
from compress.errors import BadInput
from compress.quantization.calibration import CalibrationCrops
from compress.quantization.correction import bias_corrected
from compress.quantization.equalization import balancing_factors, equalized, largest_magnitudes
from compress.quantization.integer import IntegerStudent
from compress.quantization.mix import arithmetic_of, layers
from compress.quantization.observers import RULES, Histogram, RangeRule
from compress.quantization.scales import (
    chosen_scales,
    clipped_scales,
    integer_weights,
    observed,
    wide_scales,
)
from compress.quantization.scheme import Arithmetic, Quantization

JUDGED, FITTED = 16, 16  # crops at most: that judge a choice; that biases are fitted to
BATCH = 4


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How integers are chosen.

    Attributes:
        range: rule of the ranges of values.
        equalization: of channels across layers.
        clipping: of weights, where that lowers their squared error.
        bias_correction: by the mean error of every channel.
    """

    range: RangeRule
    equalization: bool = False
    clipping: bool = False
    bias_correction: bool = False


def quantize_student(
    student: Student,
    crops: CalibrationCrops,
    rule: RangeRule | None = None,
    *,
    plain: bool = False,
    arithmetic: Arithmetic = "int8",
) -> Student:
    """The int8 student: integer weights and biases, and a scale for every value of the deploy graph.

    Args:
        student: float.
        crops: real LR content.
        rule: how ranges are chosen from what was observed; None tries all.
        plain: ranges alone ('mse' where no rule is named), as QAT starts; otherwise equalization, clipped weights and
            bias correction are tried, too, and used where they help.
        arithmetic: 'int8', or 'int16' for 16-bit values with the same weights.

    Raises:
        BadInput: an int8 student, or an architecture that does not fit the deploy graph.
    """
    trial = Trial(float_graph(student), crops.crops)
    chosen = {layer.name: arithmetic for layer in layers(trial.graph)}
    plan = Plan(range=rule or "mse") if plain else trial.best(rule, chosen)
    return finished(student, trial.quantization(plan, chosen), {**dataclasses.asdict(plan), **crops.describe()})


def float_graph(student: Student) -> DeployGraph:
    """What is to be quantized. Raises BadInput; see `quantize_student`."""
    if student.quantization:
        raise BadInput(
            "expected a float student to quantize, found one that is int8 already: give the float student.pt."
        )
    return student.deploy()


def finished(student: Student, quantization: Quantization, calibration: dict[str, Any]) -> Student:
    """The float student with its integers and where they come from."""
    quantization = dataclasses.replace(quantization, calibration={"method": "ptq", **calibration})
    provenance = {**student.provenance, "float_student_sha256": student.file_hash}
    return dataclasses.replace(student, quantization=quantization, provenance=provenance, metrics=[], file_hash=None)


class Trial:
    """Quantizations of one graph by different plans. What was observed is kept between them.

    Args:
        graph: float.
        crops: (N, 3, h, w) in [0, 1].
    """

    def __init__(self, graph: DeployGraph, crops: Tensor):
        self.graph, self.crops = graph, crops
        self.fitted, judged = crops[0::2][:FITTED], crops[1::2]
        self.judged = judged[:: max(1, len(judged) // JUDGED)][:JUDGED]
        self.seen: dict[bool, tuple[DeployGraph, dict[str, Tensor], dict[str, Histogram]]] = {}
        with torch.no_grad():
            self.wanted = torch.cat([graph(batch).clamp(0, 1) for batch in self.judged.split(BATCH)])

    def best(self, rule: RangeRule | None, chosen: Mapping[str, Arithmetic]) -> Plan:
        """One choice after another; a tie stays with the simpler plan.

        Args:
            rule: the only one to try; None is all.
            chosen: as for `quantization`.
        """
        results: dict[Plan, float] = {}

        def best_of(*plans: Plan) -> Plan:
            for plan in plans:
                if plan not in results:
                    results[plan] = self.psnr(self.quantization(plan, chosen))
            return max(plans, key=results.__getitem__)

        rules = [rule] if rule else list(RULES)
        plan = best_of(*(Plan(range=one, equalization=on) for on in (False, True) for one in rules))
        plan = best_of(plan, dataclasses.replace(plan, bias_correction=True))
        return best_of(plan, dataclasses.replace(plan, clipping=True))

    def psnr(self, quantization: Quantization) -> float:
        """dB between the integer student and the float one, on crops that nothing was fitted to."""
        reference = IntegerStudent(self.graph, quantization)
        found = torch.cat([reference(batch) for batch in self.judged.split(BATCH)])
        error = (found - self.wanted).double().square().mean().item()
        return -10 * math.log10(error) if error else math.inf

    def quantization(self, plan: Plan, chosen: Mapping[str, Arithmetic]) -> Quantization:
        """The integers that a plan gives.

        Args:
            plan: to follow.
            chosen: arithmetic by name of layer (see `compress.quantization.mix`); int8 where none is named.
        """
        graph, factors, histograms = self._seen(plan.equalization)
        activations = chosen_scales(graph, histograms, plan.range)
        integers = {
            name: integer_weights(
                operator, activations[inputs[0]], clipped_scales(operator.weight) if plan.clipping else None
            )
            for name, operator, inputs in graph.steps()
            if isinstance(operator, Conv)
        }
        arithmetic = arithmetic_of(graph, chosen)
        wide = wide_scales(graph, histograms) if "int16" in arithmetic.values() else {}
        made = Quantization(activations, integers, {}, equalization=factors, arithmetic=arithmetic, wide=wide)
        return bias_corrected(self.graph, made, self.fitted) if plan.bias_correction else made

    def _seen(self, equalizes: bool) -> tuple[DeployGraph, dict[str, Tensor], dict[str, Histogram]]:
        if equalizes not in self.seen:
            factors = balancing_factors(self.graph, largest_magnitudes(self.graph, self.crops)) if equalizes else {}
            graph = equalized(self.graph, factors) if factors else self.graph
            self.seen[equalizes] = graph, factors, observed(graph, self.crops)
        return self.seen[equalizes]
