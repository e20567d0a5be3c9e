"""A file judged by what is in it: all that is counted, and what will hurt on a phone."""

import textwrap
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from compress.errors import BadInput
from export.audit import cost, graphs
from export.audit.contents import FLOATS, Contents, Format, Operator, Size
from export.audit.delegates import LISTS, NAMES
from export.audit.folding import folded
from export.audit.graphs import kind_of
from export.audit.weights import weights_of
from export.metadata import INTEGER, Metadata

CONVERTING = {
    "int8": [],
    "uint8": ["QUANTIZE:lr_int8", "QUANTIZE:sr"],
    "float32": ["QUANTIZE:lr_int8", "DEQUANTIZE:sr"],
}
"""Operators between images of that type and the int8 values of a .tflite of ours, as "TYPE:output name"."""
SUFFIXES: dict[str, Format] = {".tflite": "tflite", ".onnx": "onnx", ".mlpackage": "coreml"}


@dataclass(frozen=True)
class OperatorCount:
    """Operators of one kind that make one type; `weights`: the type of what they multiply with, or None."""

    kind: str
    dtype: str
    weights: str | None
    count: int


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What a file contains.

    Attributes:
        format: 'tflite', 'onnx' or 'coreml'.
        metadata: what the file says about itself; None if another program made it.
        operators: how many of each type.
        typed_operators: the same by type of values and weights.
        float_operators: those that read or write a float tensor, as "TYPE:output name"; in an .onnx of the graph that
            ONNX Runtime's CPU provider runs. TFLite's weights stored as float16 are unpacked by DEQUANTIZE, which counts.
            Core ML's conversion between picture and integers does not count.
        islands: connected float operators between integer ones, in the same form.
        input_type, output_type: types of the image tensors, such as INT8; UINT8 for Core ML's pictures.
        size: LR (height, width) that macs and arena_bytes are for; None where the input is no image.
        delegate: that partitions and outside are about: 'xnnpack' (measured in LiteRT), 'cpu' (ONNX Runtime's provider,
            measured), or a list of `export.audit.delegates`; None for Core ML, which keeps its choice to itself.
        partitions: groups of operators that the delegate takes; 1 is best; None where nothing says.
        outside_layers: operators that are left to slower kernels, as "TYPE:output name".
        weight_bytes: of all constant tensors, as stored.
        weights, zeros: numbers in tensors that are multiplied with, and how many of them are 0.
        sparse_tensors, dense_zeros: tensors stored without their zeros; zeros that are stored.
        file_bytes: of the file, or of all files of a package.
        largest_rank: of any tensor; delegates refuse more than 4.
        resizable: whether it takes images of any size.
        macs: multiply-accumulates for one image, and arena_bytes: memory for the values between the operators (see
            `export.audit.cost`); None where shapes are not known.
        quantized: whether it computes on small integers.
        refused: why the runtime of the format does not run it, or None.
    """

    format: Format
    metadata: Metadata | None
    operators: dict[str, int]
    typed_operators: list[OperatorCount]
    float_operators: list[str]
    islands: list[list[str]]
    input_type: str
    output_type: str
    size: Size | None
    delegate: str | None
    partitions: int | None
    outside_layers: list[str]
    weight_bytes: int
    weights: int
    zeros: int
    sparse_tensors: int
    dense_zeros: int
    file_bytes: int
    largest_rank: int
    resizable: bool
    macs: int | None
    arena_bytes: int | None
    quantized: bool
    refused: str | None
    contents: Contents = field(repr=False, compare=False)

    @property
    def outside(self) -> list[str]:
        """Types of the operators that are left to slower kernels."""
        return sorted(kind_of(label) for label in self.outside_layers)

    @property
    def integer_only(self) -> bool:
        """No operator computes on floats."""
        return not self.float_operators

    def faults(self, precision: str, images: str = "int8") -> list[str]:
        """Why the .tflite is not what a file of that precision, with such images if it is int8, should be; empty when it is."""
        faults = []
        mixed = precision in ("int16x8", "mixed")  # of kernels that XNNPACK has and has not, by design
        converting = CONVERTING[images] if precision in INTEGER else []
        if precision in INTEGER and not mixed:
            floats = [one for one in self.float_operators if one not in converting]
            if floats:
                faults.append(f"{len(floats)} float operators, first {floats[0]}")
        wanted = images.upper() if precision in INTEGER else "FLOAT32"
        if (self.input_type, self.output_type) != (wanted, wanted):
            faults.append(f"images of type {self.input_type} and {self.output_type} instead of {wanted}")
        outside = [kind_of(one) for one in self.outside_layers if one not in converting]
        if not mixed and (self.partitions != 1 or outside):
            faults.append(f"{self.partitions} XNNPACK partitions with {', '.join(outside) or 'nothing'} outside")
        if self.largest_rank > 4:
            faults.append(f"a tensor of rank {self.largest_rank}")
        return faults


def audit_file(path: str | Path, *, size: Size | None = None, delegate: str | None = None) -> Audit:
    """Audits a file of any program.

    Args:
        path: a .tflite, .onnx or .mlpackage.
        size: LR (height, width) for macs and arena; None is the file's own, or 64x64 where it has none.
        delegate: one of `export.audit.delegates.NAMES`; None is what the format's runtime uses by itself.

    Raises:
        BadInput: no such file, another kind of file, a damaged one, one that its runtime refuses, a size that it does
            not take, or a delegate that does not run its format.
    """
    path = Path(path)
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise BadInput(f"expected a {', '.join(SUFFIXES)}, found {path}: name an exported file.")
    if delegate is not None and delegate not in NAMES:
        raise BadInput(f"expected a delegate out of {', '.join(NAMES)}, found {delegate!r}: choose one.")
    if delegate and (delegate, kind) not in LISTS and (delegate, kind) != ("xnnpack", "tflite"):
        runs = sorted({name for name, form in (*LISTS, ("xnnpack", "tflite")) if form == kind})
        advice = f"choose {' or '.join(runs)}" if runs else "Core ML divides the work by itself, so leave it out"
        raise BadInput(f"expected a delegate that runs {path.suffix} files, found {delegate!r}: {advice}.")
    try:
        if kind == "tflite":
            return _tflite(path, size, delegate)
        return _onnx(path, size, delegate) if kind == "onnx" else _coreml(path, size)
    except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:  # of graphs that point into nothing
        said = textwrap.shorten(str(error), 100, placeholder="...")
        raise BadInput(
            f"expected a whole {path.suffix} file, found a damaged one in {path} ({said}): export it again."
        ) from error


def audit_tflite(path: str | Path) -> Audit:
    """Audits a .tflite for XNNPACK, whatever its suffix. Raises BadInput as `audit_file`."""
    return _tflite(Path(path), None, None)


def _tflite(path: Path, size: Size | None, delegate: str | None) -> Audit:
    from export.audit.tflite import read_contents, xnnpack_partitions

    contents = read_contents(path, size)
    pieces, outside = xnnpack_partitions(path)
    refused = "it has custom operators that LiteRT does not" if pieces is None else None
    if delegate not in (None, "xnnpack"):
        pieces, outside = _listed(contents, delegate)
    floats = [o for o in contents.operators if any(t.dtype in FLOATS for t in contents.touched(o))]
    return _audit(contents, contents, floats, delegate or "xnnpack", pieces, outside, refused)


def _onnx(path: Path, size: Size | None, delegate: str | None) -> Audit:
    from export.audit.onnx import optimised, read_contents

    contents = read_contents(path, size)
    runs = optimised(path)
    refused = runs if isinstance(runs, str) else None
    graph = folded(contents) if isinstance(runs, str) else runs
    floats = [o for o in graph.operators if graphs.is_float(graph, o)]
    pieces, outside = None, []
    if delegate:
        pieces, outside = _listed(contents, delegate)
    elif refused is None:
        names = {operator.name for operator in floats} if graphs.is_quantized(graph) else set()
        pieces, left = graphs.partitions(graph, lambda operator: operator.name not in names)
        outside = graphs.labels(left)
    return _audit(contents, graph, floats, delegate or "cpu", pieces, outside, refused)


def _coreml(path: Path, size: Size | None) -> Audit:
    from export.audit.coreml import read_contents

    contents = read_contents(path, size)
    graph = folded(contents)
    floats = [o for o in graph.operators if graphs.is_float(graph, o) and not set(o.outputs) <= graph.fixed]
    if graphs.is_quantized(graph) and contents.pictures:
        floats = [o for o in floats if o.name not in graphs.ends(graph)]
    return _audit(contents, graph, floats, None, None, [], None)


def _listed(contents: Contents, delegate: str) -> tuple[int, list[str]]:
    listed = LISTS[delegate, contents.format]
    pieces, left = graphs.partitions(contents, lambda operator: listed.takes(contents, operator))
    return pieces, graphs.labels(left)


def _audit(
    contents: Contents,
    graph: Contents,
    floats: list[Operator],
    delegate: str | None,
    partitions: int | None,
    outside_layers: list[str],
    refused: str | None,
) -> Audit:
    """`contents`: of the file; `graph`: as its engine runs it."""
    weights = weights_of(contents)
    quantized = graphs.is_quantized(graph)
    ends = ["UINT8" if contents.pictures else contents.tensors[n[0]].dtype for n in (contents.inputs, contents.outputs)]
    return Audit(
        format=contents.format,
        metadata=contents.metadata,
        operators=dict(contents.counts()),
        typed_operators=_typed(contents),
        float_operators=graphs.labels(floats),
        islands=[graphs.labels(island) for island in graphs.islands(graph)] if quantized else [],
        input_type=ends[0],
        output_type=ends[1],
        size=contents.size,
        delegate=delegate,
        partitions=partitions,
        outside_layers=outside_layers,
        weight_bytes=sum(tensor.stored_bytes for tensor in contents.constants()),
        weights=sum(weight.count for weight in weights),
        zeros=sum(weight.zeros for weight in weights),
        sparse_tensors=sum(weight.stored.sparse for weight in weights),
        dense_zeros=sum(weight.zeros for weight in weights if not weight.stored.sparse),
        file_bytes=contents.file_bytes,
        largest_rank=max((len(t.shape) for t in contents.tensors.values() if t.shape is not None), default=0),
        resizable=contents.any_size,
        macs=cost.macs(contents),
        arena_bytes=cost.arena_bytes(contents if contents.format == "tflite" else folded(contents)),
        quantized=quantized,
        refused=refused,
        contents=contents,
    )


def _typed(contents: Contents) -> list[OperatorCount]:
    weights = {weight.layer: weight.stored.dtype for weight in weights_of(contents)}
    kinds = Counter(
        (o.kind, contents.tensors[o.outputs[0]].dtype if o.outputs else "", weights.get(o.name))
        for o in contents.operators
    )
    return [OperatorCount(*kind, count) for kind, count in kinds.items()]
