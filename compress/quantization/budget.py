"""The cheapest mix of int8, int16 and float layers that loses no more than a budget allows."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from compress.errors import BadInput
from compress.quantization.mix import layers
from compress.quantization.ptq import Plan, Trial
from compress.quantization.scheme import Arithmetic, Quantization
from compress.quantization.sensitivity import Judge, Sensitivity

Chosen = Mapping[str, Arithmetic]


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Of a multiply-accumulate, in those of int8.

    The defaults are latencies of the zoo's student in TFLite on an x86-64 core, one thread (`docs/quantization.md`):
    XNNPACK has no 16-bit kernels, so that float is both cheaper there and more exact, and int16 is never chosen. For an
    NPU that runs 16x8 at, say, half the speed of int8 and no float at all, give 2 and a large number.
    """

    int16: float = 7.5
    real: float = 3.5

    def of(self, kind: Arithmetic) -> float:
        return {"int8": 1.0, "int16": self.int16, "float": self.real}[kind]


@dataclass(frozen=True)
class Mix:
    """What was found.

    Attributes:
        quantization: with its arithmetic.
        chosen: arithmetic by name of layer, of those that are not int8.
        loss: dB on the judge's crops.
        int8_loss: the same with all layers in int8.
        cost: of all MACs, over that in int8.
    """

    quantization: Quantization
    chosen: dict[str, Arithmetic]
    loss: float
    int8_loss: float
    cost: float


def within_budget(
    trial: Trial,
    plan: Plan,
    rows: Sequence[Sensitivity],
    judge: Judge,
    budget: float,
    costs: Costs | None = None,
    on_try: Callable[[str], object] = lambda note: None,
) -> Mix:
    """The cheapest mix that greedy search finds; int8 alone where that is enough.

    Layers are ordered by the squared error that they alone make in the output over what raising them costs. The smallest
    number of them that keeps the budget is found by bisection, in the cheaper of int16 and float that can keep it at
    all; then each raised layer, the costliest first, returns to int8 if the budget allows. Every step is measured.

    Args:
        trial, plan: that the int8 student was made with.
        rows: its sensitivities.
        judge: on content that nothing was calibrated on.
        budget: dB that may be lost against ground truth.
        costs: default: `Costs()`.
        on_try: called with a few words after every mix that was measured.

    Raises:
        BadInput: a budget that is not above 0, or that nothing but float in every layer keeps.
    """
    check_budget(budget)
    costs, macs = costs or Costs(), {layer.name: layer.macs for layer in layers(trial.graph)}
    cost_of_int8 = sum(macs.values())

    def measured(chosen: Chosen) -> Mix:
        quantization = trial.quantization(plan, chosen)
        loss = judge.loss(quantization)
        on_try(f"{len(chosen)} layers raised: {loss:.4f} dB")
        cost = sum(size * costs.of(chosen.get(name, "int8")) for name, size in macs.items())
        return Mix(quantization, dict(chosen), loss, int8.loss if chosen else loss, cost / cost_of_int8)

    int8 = measured({})
    if int8.loss <= budget:
        return int8
    worst_first = sorted(rows, key=lambda row: -(10 ** (-row.psnr / 10)) / max(1, row.macs))
    names = [row.name for row in worst_first]
    kinds: list[Arithmetic] = sorted(("int16", "float"), key=costs.of)
    kind = next((one for one in kinds if one == "float" or measured(dict.fromkeys(names, one)).loss <= budget), "float")
    best = _fewest(names, kind, budget, measured)
    for name in sorted(best.chosen, key=lambda name: -macs[name]):
        found = measured({one: of for one, of in best.chosen.items() if one != name})
        best = found if found.loss <= budget else best
    if len(best.chosen) == len(names) and kind == "float":
        raise BadInput(
            f"expected a budget that some layer can keep in int8, found that {budget:g} dB asks for float in all "
            f"{len(names)}: raise it, train with QAT, or ship float32."
        )
    return dataclasses.replace(best, int8_loss=int8.loss)


def check_budget(budget: float) -> None:
    """Raises BadInput for one that is not above 0 dB."""
    if not 0 < budget < math.inf:
        raise BadInput(f"expected a budget above 0 dB, found {budget:g}: 0.05 is customary.")


def _fewest(names: Sequence[str], kind: Arithmetic, budget: float, measured: Callable[[Chosen], Mix]) -> Mix:
    """The shortest prefix of the names that keeps the budget, if losses fall as it grows; all of them keep it."""
    low, high, best = 0, len(names), None
    while high - low > 1:
        middle = (low + high) // 2
        found = measured(dict.fromkeys(names[:middle], kind))
        if found.loss <= budget:
            high, best = middle, found
        else:
            low = middle
    return best or measured(dict.fromkeys(names, kind))


def why(mix: Mix, rows: Sequence[Sensitivity], budget: float) -> list[str]:
    """Sentences for a person: which layers are raised, and why."""
    if not mix.chosen:
        return [f"int8 in every layer loses {mix.loss:.4f} dB, within the budget of {budget:g}: nothing is raised"]
    by_name = {row.name: row for row in rows}
    lines = [f"int8 in every layer loses {mix.int8_loss:.4f} dB, more than the budget of {budget:g}"]
    for name, kind in mix.chosen.items():
        row = by_name[name]
        lines.append(f"{kind}: {name}, which alone in int8 leaves {row.psnr:.2f} dB to the float output")
    return [*lines, f"this mix loses {mix.loss:.4f} dB and costs {mix.cost:.2f} times as much as int8 alone"]
