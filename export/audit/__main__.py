"""`python -m export.audit FILE`: what is really in a .tflite, .onnx or .mlpackage, and what will hurt on a phone."""

import argparse
import json
import re
from pathlib import Path

from compress.errors import BadInput, run_command
from compress.files import write_text
from export.audit.audit import audit_file
from export.audit.contents import Size
from export.audit.delegates import LISTS, NAMES
from export.audit.findings import findings
from export.audit.rules import RULES, broken_rules, parse_rules


def main() -> int:
    """Exit code 0; 1 where a rule is broken, or the file is not what its own metadata says."""
    arguments = _parser().parse_args()
    try:
        from export.audit.report import print_audit, to_json
    except ModuleNotFoundError as error:
        raise BadInput("expected rich to print tables, found it missing: pip install rich.") from error
    required = parse_rules(arguments.require or "")
    audit = audit_file(arguments.file, size=_size(arguments.size), delegate=arguments.delegate)
    found, broken = findings(audit), broken_rules(audit, required)
    print_audit(arguments.file, audit, found, broken, len(required))
    if arguments.json:
        write_text(arguments.json, json.dumps(to_json(arguments.file, audit, found, broken), indent=1) + "\n")
    untrue = any(one.severity == "fault" for one in found) and audit.metadata is not None
    return 1 if broken or untrue else 0


def _parser() -> argparse.ArgumentParser:
    rules = [f"  {name + ('=N' if rule.limit else ''):18}{rule.text}" for name, rule in RULES.items()]
    lists = [f"  {name} for .{form}: {one.source}" for (name, form), one in LISTS.items()]
    parser = argparse.ArgumentParser(
        prog="python -m export.audit",
        description="Says what is in a model file, ours or not: operators, types, float islands, partitions, sparsity, "
        "cost. Exits with 1 where a rule given with --require is broken, or the file is not what its metadata says.",
        epilog="\n".join(["rules:", *rules, "", "delegates' lists:", "  xnnpack for .tflite: LiteRT is asked", *lists]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="a .tflite, .onnx or .mlpackage")
    parser.add_argument("--require", metavar="RULES", help="rules, with commas between them; see below")
    parser.add_argument("--delegate", metavar="NAME", help=f"{', '.join(NAMES)}; default: what the runtime uses")
    parser.add_argument(
        "--size", metavar="HxW", help="of the LR image, for MACs and arena; default: the file's, or 64x64"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    return parser


def _size(text: str | None) -> Size | None:
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise BadInput(f"expected a size like 64x64, found {text!r}: give HEIGHTxWIDTH of the LR image.")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    run_command(main)
