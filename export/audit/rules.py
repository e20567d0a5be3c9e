"""Rules for CI: `--require int8-only,one-partition,max-bytes=100000`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compress.errors import BadInput
from export.audit.audit import Audit
from export.audit.contents import FLOATS
from export.audit.delegates import LARGEST_RANK
from export.audit.truth import contradictions
from export.audit.weights import weights_of

EIGHT_BITS = ("INT8", "UINT8")


@dataclass(frozen=True)
class Rule:
    """What a file must be. `broken` gives the reason why it is not, or None; `limit` says that it takes a number."""

    text: str
    broken: Callable[[Audit, int], str | None]
    limit: bool = False


@dataclass(frozen=True)
class Required:
    """A rule that was asked for, with its number."""

    name: str
    rule: Rule
    limit: int = 0

    def broken(self, audit: Audit) -> str | None:
        return self.rule.broken(audit, self.limit)

    def __str__(self) -> str:
        return f"{self.name}={self.limit}" if self.rule.limit else self.name


def parse_rules(text: str) -> list[Required]:
    """'int8-only,max-bytes=70000' as rules. Raises BadInput for an unknown one, and for a number that lacks or is too much."""
    required = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, given, number = entry.partition("=")
        rule = RULES.get(name)
        if rule is None:
            known = ", ".join(f"{one}=N" if rule.limit else one for one, rule in RULES.items())
            raise BadInput(f"expected rules out of {known}, found {name!r}: correct the name.")
        if rule.limit != bool(given) or (given and not number.strip().isdigit()):
            form = f"{name}=N with a whole number N" if rule.limit else f"{name} without a number"
            raise BadInput(f"expected {form}, found {entry!r}: correct it.")
        required.append(Required(name, rule, int(number or 0)))
    return required


def broken_rules(audit: Audit, required: Sequence[Required]) -> dict[str, str]:
    """Reason by rule, of those that the file breaks."""
    found = {str(one): one.broken(audit) for one in required}
    return {name: reason for name, reason in found.items() if reason is not None}


def _int8_only(audit: Audit, _: int) -> str | None:
    if audit.float_operators:
        return f"{len(audit.float_operators)} float operators, first {audit.float_operators[0]}"
    kinds = (audit.input_type, audit.output_type)
    if not set(kinds) <= set(EIGHT_BITS):
        return f"images of type {kinds[0]} and {kinds[1]}"
    wide = [o.name for o in audit.contents.operators if any(t.dtype == "INT16" for t in audit.contents.of(o.outputs))]
    if wide:
        return f"{len(wide)} operators with 16-bit values, first {wide[0]}"
    return None if audit.quantized else "no operator computes on integers"


def _integer_only(audit: Audit, _: int) -> str | None:
    if audit.float_operators:
        return f"{len(audit.float_operators)} float operators, first {audit.float_operators[0]}"
    return None if audit.quantized else "no operator computes on integers"


def _one_partition(audit: Audit, _: int) -> str | None:
    if audit.partitions is None:
        return f"nothing says how {'Core ML' if audit.format == 'coreml' else 'it'} is divided"
    if audit.partitions == 1 and not audit.outside:
        return None
    return f"{audit.partitions} partitions with {', '.join(audit.outside) or 'nothing'} outside"


def _rank4(audit: Audit, _: int) -> str | None:
    return f"a tensor of rank {audit.largest_rank}" if audit.largest_rank > LARGEST_RANK else None


def _any_size(audit: Audit, _: int) -> str | None:
    return None if audit.resizable else "a size that is baked in"


def _no_islands(audit: Audit, _: int) -> str | None:
    return f"{len(audit.islands)} float islands, first at {audit.islands[0][0]}" if audit.islands else None


def _delegate(audit: Audit, _: int) -> str | None:
    if audit.refused:
        return f"its runtime does not run it: {audit.refused}"
    return f"{', '.join(audit.outside)} outside {audit.delegate}" if audit.outside else None


def _metadata(audit: Audit, _: int) -> str | None:
    if audit.metadata is None:
        return "no metadata of pocketsr in it"
    return next((what for _, what in contradictions(audit)), None)


def _per_channel(audit: Audit, _: int) -> str | None:
    single = [
        w.layer for w in weights_of(audit.contents) if w.stored.dtype in EIGHT_BITS and w.scales == 1 < len(w.shape)
    ]
    return f"{len(single)} layers with one scale for all channels, first {single[0]}" if single else None


def _integer_images(audit: Audit, _: int) -> str | None:
    kinds = (audit.input_type, audit.output_type)
    return f"images of type {kinds[0]} and {kinds[1]}" if set(kinds) & FLOATS else None


def _at_most(what: str, value: Callable[[Audit], int | None]) -> Callable[[Audit, int], str | None]:
    def broken(audit: Audit, limit: int) -> str | None:
        found = value(audit)
        if found is None:
            return f"{what} cannot be told"
        return f"{found:,} {what}" if found > limit else None

    return broken


RULES: dict[str, Rule] = {
    "int8-only": Rule("8-bit integers from image to image, no operator on floats", _int8_only),
    "integer-only": Rule("the same, with 16-bit values allowed", _integer_only),
    "no-float-islands": Rule("no float operators between integer ones", _no_islands),
    "integer-images": Rule("images of integers, or pictures", _integer_images),
    "one-partition": Rule("the delegate takes all operators, in one piece", _one_partition),
    "delegate": Rule("no operator outside the delegate", _delegate),
    "rank4": Rule("no tensor of a rank above 4", _rank4),
    "any-size": Rule("images of any size", _any_size),
    "per-channel": Rule("8-bit weights have one scale per output channel", _per_channel),
    "metadata": Rule("metadata of pocketsr, and contents that agree with it", _metadata),
    "max-bytes": Rule("size of the file", _at_most("bytes of file", lambda a: a.file_bytes), limit=True),
    "max-weights": Rule("size of the weights", _at_most("bytes of weights", lambda a: a.weight_bytes), limit=True),
    "max-arena": Rule("memory for values, at --size", _at_most("bytes of arena", lambda a: a.arena_bytes), limit=True),
    "max-macs": Rule("multiply-accumulates, at --size", _at_most("MACs", lambda a: a.macs), limit=True),
}
