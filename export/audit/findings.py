"""What hurts on a phone: each finding with its layer, why it matters, and the fix."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from export.audit.audit import Audit
from export.audit.contents import FLOATS, SMALL_INTEGERS
from export.audit.delegates import LARGEST_RANK, LISTS
from export.audit.graphs import kind_of, layer_of
from export.audit.truth import contradictions
from export.audit.weights import weights_of

Severity = Literal["fault", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("fault", "warning", "note")
MANY_ZEROS = 0.3  # of a layer's weights: fewer are what rounding to int8 leaves by itself
SMALLEST_TENSOR = 64  # numbers: a scale for each channel of less is nobody's concern
PIXELS = (1 / 255, 1.0)  # scales with which integers are pixels, of values in [0, 1] and in [0, 255]


@dataclass(frozen=True)
class Finding:
    """One thing that will hurt.

    Attributes:
        severity: 'fault' (the file is not what it says, or will not run), 'warning' (slow or inexact), 'note'.
        layer: name of the operator or tensor; 'file' for what concerns all of it.
        found: what is there.
        why: it matters on a phone.
        fix: what to do.
    """

    severity: Severity
    layer: str
    found: str
    why: str
    fix: str


def findings(audit: Audit) -> list[Finding]:
    """All of a file, faults first."""
    found = [finding for check in CHECKS for finding in check(audit)]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def _metadata(audit: Audit) -> Iterator[Finding]:
    for layer, what in contradictions(audit):
        yield Finding(
            "fault",
            layer,
            what,
            "the runtime trusts the metadata: it would feed the wrong type or refuse the file",
            "export the student again; do not convert a finished file",
        )


def _refusal(audit: Audit) -> Iterator[Finding]:
    if audit.refused:
        custom = [o.name for o in audit.contents.operators if o.kind.startswith("CUSTOM")]
        yield Finding(
            "fault",
            custom[0] if custom else "file",
            f"its runtime does not run it: {audit.refused}",
            "an app needs a runtime with these operators built in, tens of megabytes for TensorFlow's",
            "replace the operator in the network, or convert without TensorFlow's operators",
        )
    if audit.contents.kernels_refuse:
        layers = [o.name for o in audit.contents.operators if f"({o.kind})" in audit.contents.kernels_refuse]
        yield Finding(
            "warning",
            layers[0] if layers else "file",
            f"runs with XNNPACK only: LiteRT's own kernels refuse it ({audit.contents.kernels_refuse})",
            "an app that switches XNNPACK off, or a delegate that leaves this operator to the CPU, cannot load the file",
            "clip the output instead of a sigmoid or tanh, whose int8 kernels ask for a scale of 1/256",
        )
    if audit.contents.graphs > 1:
        yield Finding(
            "note",
            "file",
            f"{audit.contents.graphs} graphs in the file, of which the first was read",
            "conditions and loops call further graphs, which accelerators leave to the CPU",
            "export the network without them",
        )


def _islands(audit: Audit) -> Iterator[Finding]:
    for island in audit.islands:
        kinds = sorted({kind_of(label) for label in island})
        yield Finding(
            "warning",
            layer_of(island[0]),
            f"float island of {len(island)} operators between integer ones: {', '.join(kinds)}",
            "the integers become floats and integers again: four times the memory traffic, and accelerators for integers "
            "stop there",
            "give these operators scales of their own (`python -m compress.quantization`), or replace them",
        )


def _float_images(audit: Audit) -> Iterator[Finding]:
    if audit.quantized and {audit.input_type, audit.output_type} & FLOATS:
        yield Finding(
            "note",
            "image",
            f"integer arithmetic with images of type {audit.input_type} and {audit.output_type}",
            "the app has to make floats of its 8-bit pixels, four times their size, and the file has to round them back",
            "export with integer images: pixel - 128 as int8 with scale 1/255",
        )


def _pixels(audit: Audit) -> Iterator[Finding]:
    for name in (audit.contents.inputs[0], audit.contents.outputs[0]):
        tensor = audit.contents.tensors[name]
        if tensor.dtype not in ("INT8", "UINT8") or not tensor.scales:
            continue
        wanted = -128 if tensor.dtype == "INT8" else 0
        scale, zero = tensor.scales[0], tensor.zero_points[0] if tensor.zero_points else 0
        if min(abs(scale - one) for one in PIXELS) > 1e-6 or zero != wanted:
            yield Finding(
                "warning",
                name,
                f"image scale {scale:.7g} and zero point {zero} instead of 1/255 and {wanted}",
                "every pixel must be rescaled and rounded before and after, which costs time and half a level of error",
                "quantize with image scales of exactly 1/255, as `compress.quantization` does",
            )


def _ranks(audit: Audit) -> Iterator[Finding]:
    large = [t for t in audit.contents.tensors.values() if t.shape is not None and len(t.shape) > LARGEST_RANK]
    for operator in audit.contents.operators:
        mine = [t for t in audit.contents.of(operator.outputs) if t in large]
        if mine and mine[0].shape:
            yield Finding(
                "warning",
                operator.name,
                f"{operator.kind} makes a tensor of rank {len(mine[0].shape)}",
                "GPU and NNAPI delegates refuse ranks above 4, and the graph is cut in pieces there",
                "write the pixel shuffle as the format's own depth-to-space",
            )


def _delegate(audit: Audit) -> Iterator[Finding]:
    listed = LISTS.get((audit.delegate or "", audit.format))
    runner = listed.title if listed else {"xnnpack": "XNNPACK", "cpu": "integer kernels"}.get(audit.delegate or "", "")
    for kind in sorted(set(audit.outside)):
        layers = [layer_of(label) for label in audit.outside_layers if kind_of(label) == kind]
        yield Finding(
            "warning",
            layers[0],
            f"{len(layers)} {kind} outside {runner}",
            "it runs on slower kernels, and the values travel there and back",
            FIXES.get(kind, "use an operator that the delegate takes, or another delegate"),
        )
    if audit.partitions is not None and audit.partitions != 1 and not (audit.partitions == 0 and not audit.outside):
        yield Finding(
            "warning",
            "file",
            f"{audit.partitions} partitions for {runner}" if audit.partitions else f"nothing for {runner} to run",
            "between two partitions the values change kernels, on a GPU or NPU by way of the main memory",
            "remove what lies between them; see the operators outside",
        )


FIXES = {
    "PRELU": "train with ReLU, or export with pocketsr, which writes an int8 PReLU as two ReLUs",
    "RELU_0_TO_1": "clip as relu(x) - relu(x - 1)",
    "TRANSPOSE": "keep the layout of the format (NHWC in TFLite) from the first operator to the last",
    "CONCATENATION": "concatenate at most five tensors of one scale",
    "QUANTIZE": "take and give int8 images instead of uint8 ones",
}


def _transposes(audit: Audit) -> Iterator[Finding]:
    moving = [o for o in audit.contents.operators if o.kind.lower() == "transpose"]
    if moving:
        yield Finding(
            "warning",
            moving[0].name,
            f"{len(moving)} transposes",
            "each one copies all values and computes nothing; before a pixel shuffle they are a sign that it was taken apart",
            "export the pixel shuffle as depth-to-space, and keep one layout",
        )


def _size(audit: Audit) -> Iterator[Finding]:
    if audit.resizable or audit.size is None:
        return
    severity: Severity = "note" if audit.format == "coreml" else "warning"
    yield Finding(
        severity,
        "file",
        f"takes images of {audit.size[0]}x{audit.size[1]} only"
        if audit.format != "coreml"
        else "takes named sizes only",
        "photographs have other sizes, so the app must cut every one into tiles of this size"
        + ("; the Neural Engine asks for it" if audit.format == "coreml" else ""),
        "export for any size" if audit.format != "coreml" else "nothing, if the app uses these sizes; else --size any",
    )


def _scales(audit: Audit) -> Iterator[Finding]:
    for weight in weights_of(audit.contents):
        if weight.stored.dtype not in SMALL_INTEGERS or weight.count < SMALLEST_TENSOR:
            continue
        if weight.scales == 1:
            yield Finding(
                "warning",
                weight.layer,
                f"{weight.stored.dtype} weights with one scale for all channels",
                "channels of small weights get few of the 255 levels: the usual cause of a large int8 loss",
                "quantize with one scale per output channel",
            )
        if weight.stored.dtype == "INT8" and any(weight.stored.zero_points):
            yield Finding(
                "warning",
                weight.layer,
                "INT8 weights with a zero point",
                "TFLite's specification asks for symmetric weights; kernels refuse others or run slowly",
                "quantize weights symmetrically",
            )


def _wide(audit: Audit) -> Iterator[Finding]:
    wide = [o for o in audit.contents.operators if any(t.dtype == "INT16" for t in audit.contents.of(o.outputs))]
    if wide:
        yield Finding(
            "warning",
            wide[0].name,
            f"{len(wide)} operators with 16-bit activations",
            "most phones run them in slow reference kernels, and delegates refuse them",
            "keep 16 bits for the layers that need them; measure the latency before shipping",
        )


def _zeros(audit: Audit) -> Iterator[Finding]:
    for weight in weights_of(audit.contents):
        share = weight.zeros / max(weight.count, 1)
        if weight.stored.sparse:
            kept = "Core ML may profit" if audit.format == "coreml" else "no speed or memory is gained"
            yield Finding(
                "note",
                weight.layer,
                f"sparse weights, {share:.0%} zeros",
                f"the file is smaller, but runtimes unpack the weights when they load it: {kept}",
                "remove whole channels for speed (`python -m compress.pruning.channels`)",
            )
        elif share >= MANY_ZEROS and weight.count >= SMALLEST_TENSOR:
            yield Finding(
                "note",
                weight.layer,
                f"{share:.0%} of the weights are zeros, stored like the others",
                "no phone's kernel skips single zeros of a 3x3 convolution; only a compressed download gets smaller",
                "store them in the format's sparse form, or remove whole channels",
            )


CHECKS: tuple[Callable[[Audit], Iterator[Finding]], ...] = (
    _metadata, _refusal, _islands, _delegate, _ranks, _transposes, _wide, _pixels, _float_images, _scales, _size, _zeros,
)  # fmt: skip
