"""Whether a file is what its own metadata says."""

from collections.abc import Iterator

from export.audit.audit import CONVERTING, Audit
from export.audit.contents import FLOATS
from export.audit.weights import weights_of

INTEGER = ("int8", "int8-weights", "int8-dynamic")
WEIGHTS = {"float32": "FLOAT32", "float16": "FLOAT16", **dict.fromkeys(INTEGER, "INT8")}
SCALE_TOLERANCE = 1e-6


def contradictions(audit: Audit) -> Iterator[tuple[str, str]]:
    """(layer, what contradicts the metadata); nothing for a file without ours."""
    says = audit.metadata
    if says is None:
        return
    contents = audit.contents
    for name, image, dtype in (
        (contents.inputs[0], says.input, audit.input_type),
        (contents.outputs[0], says.output, audit.output_type),
    ):
        tensor = contents.tensors[name]
        if dtype != image.dtype.upper():
            yield name, f"an image of type {dtype}, where its metadata says {image.dtype}"
        elif image.scale is not None and tensor.scales and tensor.dtype not in FLOATS:
            zero = tensor.zero_points[0] if tensor.zero_points else 0
            if abs(tensor.scales[0] - image.scale) > SCALE_TOLERANCE or zero != image.zero_point:
                yield (
                    name,
                    f"an image of scale {tensor.scales[0]:.7g} and zero point {zero}, where its metadata says "
                    f"{image.scale:.7g} and {image.zero_point}",
                )
    wanted = WEIGHTS.get(says.precision)
    for weight in weights_of(contents) if wanted else ():
        if weight.stored.dtype != wanted:
            yield weight.layer, f"{weight.stored.dtype} weights, where its metadata says {says.precision}"
            break
    if says.precision == "int8":
        floats = [one for one in audit.float_operators if one not in CONVERTING[says.input.dtype]]
        for first in floats[:1]:
            what = f"{len(floats)} float operators, first {first}, where its metadata says int8"
            yield first.partition(":")[2], what
    if says.sizes == "any" and not audit.resizable and audit.refused is None:
        yield "file", "one size, where its metadata says any"
    factor = _factor(audit)
    if factor is not None and factor != (says.scale, says.scale):
        yield "file", f"images made {factor[0]:g}x{factor[1]:g} times as large, where its metadata says x{says.scale}"


def _factor(audit: Audit) -> tuple[float, float] | None:
    """How much larger the output is, in height and width; None where a shape is not known."""
    contents = audit.contents
    given, made = (contents.tensors[names[0]].shape for names in (contents.inputs, contents.outputs))
    if (
        audit.size is None
        or given is None
        or made is None
        or len(given) != 4
        or len(made) != 4
        or min(*given, *made) < 1
    ):
        return None
    axes = (1, 2) if given[1:3] == audit.size else (2, 3)
    return made[axes[0]] / given[axes[0]], made[axes[1]] / given[axes[1]]
