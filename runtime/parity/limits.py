"""Limits of the gate: what is built in, what a YAML file changes for formats, precisions and engines, what is asked.

    loss: 0.05                          # of every file
    formats: {onnx: {size_kb: 300}}
    precisions: {int8: {loss: 0.15}}
    engines: {litert: {latency_ratio: 0.8}}

Of several limits on one figure the last in this order holds: every file, its format, its precision, its engine. What the
YAML file says goes before all that is built in, what the command line says before the YAML file.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import yaml

from compress.errors import BadInput, shown
from compress.variants import parse_yaml, reason
from export.metadata import Precision
from runtime.engines import BY_SUFFIX, DEVICES, ENGINES

GROUPS = ("formats", "precisions", "engines")
SHARES = ("int8_within", "int8_identical")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a file must keep to pass; None is no limit (in what a person asks for: nothing said of it).

    Attributes:
        float_psnr: dB between the outputs of a float file and the reference, on the worst image; at least.
        int8_lsb: largest difference of an int8 file, in steps of 1/255; at most.
        int8_within: share of an int8 file's values within 1 LSB of the reference; at least.
        int8_identical: share of an int8 file's values that are the reference's; at least.
        loss: dB against ground truth, float student minus file, on the worst set; at most.
        lpips_change: LPIPS of the file minus that of the float student, on the worst set; at most.
        latency_ratio: median time of the network over that of the float student in PyTorch; at most.
        peak_ratio: peak memory over that of the float student in PyTorch; at most.
        peak_mib: peak memory in MiB; at most.
        size_kb: on disk, in units of 1000 bytes; at most.
    """

    float_psnr: float | None = None
    int8_lsb: float | None = None
    int8_within: float | None = None
    int8_identical: float | None = None
    loss: float | None = None
    lpips_change: float | None = None
    latency_ratio: float | None = None
    peak_ratio: float | None = None
    peak_mib: float | None = None
    size_kb: float | None = None

    def over(self, base: "Limits") -> "Limits":
        """`base`, with what is said here in its place."""
        return dataclasses.replace(base, **{name: value for name, value in vars(self).items() if value is not None})


NAMES = tuple(one.name for one in dataclasses.fields(Limits))


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Limits of every file, and of some: by format ('tflite'), precision, and engine (with or without its argument)."""

    every: Limits = Limits()
    formats: Mapping[str, Limits] = field(default_factory=dict)
    precisions: Mapping[str, Limits] = field(default_factory=dict)
    engines: Mapping[str, Limits] = field(default_factory=dict)

    def parts(self, form: str, precision: str, engine: str) -> Iterable[Limits]:
        """Those that concern a file, the later ones over the earlier."""
        yield self.every
        named = (self.formats, form), (self.precisions, precision), (self.engines, engine.partition(":")[0])
        yield from (limits[name] for limits, name in named if name in limits)
        if ":" in engine and engine in self.engines:
            yield self.engines[engine]


# Measured on the zoo's student: files that compute in float32 reach 138 dB and more, one channel's weights wrong by a tenth
# 66 to 102; int8 files are identical to the reference, with such a fault they have 0 to 99 % identical values.
BUILT_IN = Policy(
    every=Limits(float_psnr=110, int8_lsb=2, int8_within=0.99, int8_identical=0.99, loss=0.10),
    precisions={
        "float16": Limits(float_psnr=70),  # weights of 11 bits: 75 to 92 dB
        "int8-dynamic": Limits(float_psnr=60),  # a value between two integers falls to another side: 67 to 91 dB
    },
    engines={
        # pictures, rounded to pixels, of sums in float: 61 dB and 4 LSB, on macOS and in the reference evaluation alike
        "coreml": Limits(float_psnr=60, int8_lsb=4),
        # requantizes in fixed point: 5 LSB, 77 % identical
        "litert-builtin": Limits(int8_lsb=8, int8_within=0.95, int8_identical=0.7),
    },
)


def limits_for(form: str, precision: str, engine: str, *policies: Policy) -> Limits:
    """The limits of one file on one engine: of what is built in, then of every policy in turn, each over the last.

    Args:
        form: suffix of the file without its dot.
        precision: that the file says it has.
        engine: its name, with its argument if it has one, as in 'adb:SERIAL'.
    """
    limits = Limits()
    for policy in (BUILT_IN, *policies):
        for part in policy.parts(form, precision, engine):
            limits = part.over(limits)
    return limits


def read_policy(path: str | Path) -> Policy:
    """Reads a YAML file of limits; see this module.

    Raises:
        BadInput: no such file, not YAML, an unknown limit, format, precision or engine, or a value that is not a number
            of at least 0 (at most 1 for shares).
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"expected a YAML file of limits, found nothing at {path}: see docs/parity.md for an example.")
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(
            f"expected a YAML file of limits, found that {path} does not parse ({reason(error)}): correct it."
        ) from error
    whole = _mapping(content, str(path))
    known = {
        "formats": tuple(suffix.removeprefix(".") for suffix in BY_SUFFIX),
        "precisions": get_args(Precision),
        "engines": (*ENGINES, *DEVICES),
    }
    groups: dict[str, dict[str, Limits]] = {}
    for group in GROUPS:
        where = f"the {group} of {path}"
        named = _mapping(whole.pop(group, {}), where)
        for name in named:
            if name.partition(":")[0] not in known[group]:
                raise BadInput(
                    f"expected {group} out of {', '.join(known[group])}, found {name!r} in {path}: correct it."
                )
        groups[group] = {name: _limits(one, f"{name} in {where}") for name, one in named.items()}
    return Policy(every=_limits(whole, str(path), beside=GROUPS), **groups)


def checked_limits(values: Mapping[str, Any], where: str) -> Limits:
    """Limits out of numbers, None for what is not said. Raises BadInput for a value that cannot be a limit."""
    for name, value in values.items():
        if value is not None and not _is_limit(value):
            raise BadInput(f"expected a number of at least 0 for {name}, found {shown(value)} in {where}: correct it.")
        if value is not None and name in SHARES and value > 1:
            raise BadInput(f"expected a share of at most 1 for {name}, found {value!r} in {where}: 0.99 is 99 %.")
    return Limits(**values)


def _is_limit(value: Any) -> bool:
    """Whether it is a number of at least 0, infinity included, that a float holds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return float(value) >= 0
    except OverflowError:
        return False


def _limits(values: Any, where: str, beside: tuple[str, ...] = ()) -> Limits:
    given = _mapping(values, where)
    for name, value in given.items():
        if name not in NAMES:
            raise BadInput(
                f"expected limits out of {', '.join((*NAMES, *beside))}, found {name!r} in {where}: correct it."
            )
        if value is None:
            raise BadInput(f"expected a number of at least 0 for {name}, found nothing in {where}: leave it out.")
    return checked_limits(given, where)


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise BadInput(f"expected names with values (`name: value`) in {where}, found {str(value)[:80]!r}: correct it.")
    return dict(value)
