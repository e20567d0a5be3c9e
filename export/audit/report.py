"""An audit for people, as tables, and for machines, as JSON."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from export.audit.audit import Audit
from export.audit.findings import Finding

NARROWEST = 100
STYLES = {"fault": "bold red", "warning": "yellow", "note": "dim"}


def to_json(path: Path, audit: Audit, found: Sequence[Finding], broken: Mapping[str, str]) -> dict[str, Any]:
    """Everything that is printed, as plain values."""
    plain = {field.name: getattr(audit, field.name) for field in dataclasses.fields(audit) if field.name != "contents"}
    plain["metadata"] = dataclasses.asdict(audit.metadata) if audit.metadata else None
    plain["typed_operators"] = [dataclasses.asdict(count) for count in audit.typed_operators]
    return {
        "file": str(path),
        **plain,
        "outside": audit.outside,
        "findings": [dataclasses.asdict(finding) for finding in found],
        "broken_rules": dict(broken),
    }


def print_audit(path: Path, audit: Audit, found: Sequence[Finding], broken: Mapping[str, str], rules: int) -> None:
    """Facts, operators, findings, and what became of the rules."""
    console = _console()
    console.print(_facts(path, audit))
    operators = Table("operator", "values", "weights", "count", title="operators")
    for count in audit.typed_operators:
        operators.add_row(count.kind, count.dtype.lower(), (count.weights or "").lower(), str(count.count))
    console.print(operators)
    print_findings(found)
    for rule, reason in broken.items():
        console.print(f"BROKEN {rule}: {reason}", style="bold red", markup=False, highlight=False)
    if rules and not broken:
        console.print(f"all {rules} rules hold", highlight=False)


def print_findings(found: Sequence[Finding]) -> None:
    """A table, or that there is nothing."""
    console = _console()
    if not found:
        console.print("no findings")
        return
    table = Table("", "layer", "found", "why it matters", "fix", title="findings", show_lines=True)
    for one in found:
        table.add_row(one.severity, one.layer, one.found, one.why, one.fix, style=STYLES[one.severity])
    console.print(table)


def _facts(path: Path, audit: Audit) -> Table:
    says = audit.metadata
    size = "" if audit.size is None else f" at {audit.size[0]}x{audit.size[1]}"
    share = audit.zeros / audit.weights if audit.weights else 0.0
    stored = f"{audit.sparse_tensors} tensors stored sparse" if audit.sparse_tensors else "none stored sparse"
    runner = {"xnnpack": "XNNPACK", "cpu": "ONNX Runtime's CPU provider"}.get(audit.delegate or "", audit.delegate)
    table = Table(title=str(path), show_header=False)
    for name, value in (
        ("made by pocketsr", f"yes, {says.architecture} x{says.scale}, {says.precision}" if says else "no"),
        ("file", f"{audit.file_bytes:,} bytes, of which weights {audit.weight_bytes:,}"),
        ("images", f"{audit.input_type} in, {audit.output_type} out, {'any size' if audit.resizable else 'one size'}"),
        (
            "float operators",
            _listed(audit.float_operators) if audit.quantized else "all: no operator works on integers",
        ),
        ("float islands", str(len(audit.islands))),
        ("partitions", "Core ML does not say" if runner is None else f"{_known(audit.partitions)} for {runner}"),
        ("outside", _listed(audit.outside)),
        ("largest rank", str(audit.largest_rank)),
        ("weights", f"{audit.weights:,}, of which zeros {audit.zeros:,} ({share:.1%}), {stored}"),
        (f"MACs{size}", _known(audit.macs)),
        (f"arena{size}", f"{_known(audit.arena_bytes)} bytes, estimated"),
    ):
        table.add_row(name, value)
    return table


def _known(value: int | None) -> str:
    return "not known" if value is None else f"{value:,}"


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more or "none"


def _console() -> Console:
    console = Console(markup=False)
    return console if console.is_terminal and console.width >= NARROWEST else Console(width=140, markup=False)
