"""`python -m export.executorch student.pt`: a student as a .pte that ExecuTorch runs on XNNPACK, read back when written."""

import dataclasses
import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from compress.checkpoint import Student
from compress.cli import command_line
from compress.deploy import Conv, DeployGraph
from compress.errors import BadInput
from compress.files import written_atomically
from export.chatter import logged
from export.culprit import converted
from export.exporting import ExportedFile, describe, parts, sizes_of
from export.metadata import Metadata, Precision, Sizes
from export.order import parse_sizes, take_order
from export.pte import METADATA, PteMethod, method_names, read_pte

KNOWN: tuple[Precision, ...] = ("float32", "float16", "int8")
REASONS: Mapping[str, str] = {
    "int8-weights": "XNNPACK's convolutions take float weights for float values, and int8 ones for int8 values",
    "int16x8": "XNNPACK has no 16-bit integers",
    "mixed": "XNNPACK has no 16-bit integers, and float layers among int8 ones are not lowered yet; export to TFLite or ONNX",
    "int8-dynamic": "ExecuTorch hands XNNPACK linear layers of dynamic range, but no convolutions",
}
PRODUCERS = ("torch", "executorch")
LARGEST = 256  # pixels of a side; the memory is that of the largest image, whatever comes
EXAMPLE = 64
VIEWS = {"aten::sym_size.int", "executorch_prim::mul.Scalar", "executorch_prim::et_view.default", "aten::view_copy.out"}
CASTS = {"dim_order_ops::_to_dim_order_copy.out"}


@dataclass(frozen=True)
class PteFile(ExportedFile):
    """A .pte and what was found in it, by method."""

    methods: Mapping[str, PteMethod]

    def outside(self) -> str:
        """One line for a person: how much of it XNNPACK runs."""
        method = next(iter(self.methods.values()))
        rest = ", ".join(f"{count} {name}" for name, count in method.outside.items()) or "nothing"
        return f"{method.delegates} XNNPACK delegate{'s' * (method.delegates > 1)}, outside: {rest}"


def export_executorch(
    student: Student, path: str | Path, precision: Precision, *, sizes: Sizes | None = None, largest: int = LARGEST
) -> PteFile:
    """Writes a student as a .pte, NCHW, RGB, with metadata inside: the constant method `pocketsr_json`.

    Args:
        student: saved or loaded, so that its file's hash is known; an int8 one for 'int8'.
        path: of the file. What the converter prints goes to a .log beside it.
        precision: 'float32'; 'float16' (weights and arithmetic; images stay float32, and weights are stored as float32,
            which is all that XNNPACK's convolutions load); 'int8' (weights, activations, and images: pixel - 128).
        sizes: (height, width) of LR images: each becomes a method, 'forward' the first, 'forward_HEIGHTxWIDTH' the
            others, with weights in common. 'any' is one method for all sizes up to `largest`. None is any where the
            network allows it, else 64x64.
        largest: height and width that 'any' ends at.

    Raises:
        BadInput: a float student for int8, a precision that XNNPACK does not have, integers or sizes that the network
            does not have, ExecuTorch missing, a converter that fails, or a written file that is not what it should be;
            nothing is written then.
    """
    path = Path(path)
    if precision not in KNOWN:
        reason = REASONS.get(precision, "choose one")
        raise BadInput(f"expected a precision out of {', '.join(KNOWN)}, found {precision!r}: {reason}.")
    sizes = sizes_of(student, sizes)
    if sizes == "any" and largest < EXAMPLE:
        raise BadInput(
            f"expected --largest of at least {EXAMPLE}, found {largest}: name the sizes with --size instead."
        )
    require_executorch()
    if student.has_graph:
        parts(student, precision)  # refuses before any work is done
    metadata = describe(student, precision, layout="NCHW", producers=PRODUCERS, sizes=sizes)
    if sizes == "any":
        metadata = dataclasses.replace(metadata, largest=largest)
    log = path.with_suffix(".log")
    log.unlink(missing_ok=True)
    with logged(log, path.name):
        content = _converted(student, metadata)
    steps = student.deploy().steps() if student.has_graph else ()
    convolutions = sum(isinstance(operator, Conv) for _, operator, _ in steps)
    with written_atomically(path) as part:
        part.write_bytes(content)
        with logged(log, path.name):
            methods = read_pte(part)
        if faults := _faults(methods, metadata, convolutions):
            raise BadInput(
                f"expected a clean {precision} .pte, found {'; '.join(faults)}: see {log}, and report it to us."
            )
    first = next(iter(methods.values()))
    return PteFile(path, metadata, first.inside + first.outside, methods)


def _converted(student: Student, metadata: Metadata) -> bytes:
    """The content of the file, which says where a converter fails."""
    half = metadata.precision == "float16"
    if not student.has_graph:
        from export.lowering.half import Half

        (size,) = metadata.sizes
        network = student.fixed(*size)
        shipped = Half(network) if half else network
        return pte_content({"forward": (shipped.eval(), torch.zeros(1, 3, *size))}, metadata)
    from export.lowering.executorch import ExecutorchGraph

    graph, quantization = parts(student, metadata.precision)
    kind = torch.int8 if quantization else torch.float32

    def convert(part: DeployGraph) -> bytes:
        network = ExecutorchGraph(part, quantization, half=half, resizable=metadata.sizes == "any").eval()
        examples = {
            name: (network, torch.zeros(1, 3, *(size or (EXAMPLE, EXAMPLE)), dtype=kind))
            for size, name in method_names(metadata.sizes).items()
        }
        return pte_content(examples, metadata)

    return converted(graph, convert)


def require_executorch() -> None:
    """Raises BadInput where ExecuTorch is not installed."""
    try:
        importlib.import_module("executorch.version")
    except ModuleNotFoundError as error:
        raise BadInput(
            "expected ExecuTorch for a .pte, found it missing: pip install 'pocketsr[executorch]'."
        ) from error


def pte_content(methods: Mapping[str, tuple[nn.Module, Tensor]], metadata: Metadata) -> bytes:
    """The program that XNNPACK runs as far as it can.

    Args:
        methods: by name, a network and an image as it will come. With `metadata.largest`, height and width may be
            any up to it.
        metadata: kept as the constant method `pocketsr_json`.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
    from executorch.exir.passes import MemoryPlanningPass

    programs = {}
    for name, (network, example) in methods.items():
        shapes = None
        if metadata.largest:
            height, width = (torch.export.Dim(side, min=1, max=metadata.largest) for side in ("height", "width"))
            shapes = {next(iter(inspect.signature(network.forward).parameters)): {2: height, 3: width}}
        programs[name] = torch.export.export(network, (example,), dynamic_shapes=shapes)
    edge = to_edge_transform_and_lower(
        programs, partitioner=[XnnpackPartitioner()], constant_methods={METADATA: metadata.to_json()}
    )
    # images stay where the caller has them
    planning = MemoryPlanningPass(alloc_graph_input=False, alloc_graph_output=False)
    return edge.to_executorch(ExecutorchBackendConfig(memory_planning_pass=planning)).buffer


def _faults(methods: Mapping[str, PteMethod], metadata: Metadata, convolutions: int) -> list[str]:
    """What is wrong with a written file; of one without a deploy graph (no `convolutions`), XNNPACK may run a part."""
    faults, image, integer = [], metadata.input.dtype, metadata.precision == "int8"
    names = method_names(metadata.sizes)
    if set(methods) != set(names.values()):
        faults.append(f"the methods {', '.join(methods) or 'none'}")
    allowed = (VIEWS if metadata.sizes == "any" else set()) | (CASTS if metadata.precision == "float16" else set())
    for size, name in names.items():
        method = methods.get(name)
        if method is None:
            continue
        height, width = size or (metadata.largest or 0, metadata.largest or 0)
        wanted = [(1, 3, height * factor, width * factor) for factor in (1, metadata.scale)]
        if [method.input, method.output] != [(image, shape) for shape in wanted]:
            faults.append(f"images of {method.input} and {method.output} in {name}")
        if convolutions == 0:
            continue
        if left := set(method.outside) - allowed:
            faults.append(f"{', '.join(sorted(left))} outside of XNNPACK in {name}")
        if size and method.delegates != 1:
            faults.append(f"{method.delegates} delegates in {name}")
        kinds = {weights.values.dtype.name for weights in method.weights}
        if kinds != {"int8" if integer else "float32"} or len(method.weights) < convolutions:
            faults.append(f"{len(method.weights)} convolutions of {' and '.join(sorted(kinds))} weights in {name}")
        if method.inside["Convert"] > 2 * method.inside["Sigmoid"]:
            faults.append(f"{method.inside['Convert']} conversions between int8 and float in {name}")
    return faults


def main(
    student: Path,
    *,
    precision: Precision | None = None,
    out: Path | None = None,
    size: str | None = None,
    largest: int = LARGEST,
    calibration: str | None = None,
    force: bool = False,
) -> None:
    """Exports a student to ExecuTorch, for XNNPACK.

    Args:
        student: student.pt, float or int8.
        precision: float32, float16 or int8; left out, that of the student.
        out: the .pte to write; left out, the student's name with the precision, beside it.
        size: HEIGHTxWIDTH of the LR image, several with commas between them (a method for each), or 'any', which
            ends at --largest; left out, any where the network allows it, else 64x64. A named size takes less memory:
            with 'any' it is that of the largest image.
        largest: height and width, in pixels, of the largest LR image where --size is 'any'.
        calibration: folder of photographs, or 'skimage', to quantize a float student with; the int8 student is then
            written beside the .pte, for parity checks.
        force: replace an existing file.
    """
    sizes = parse_sizes(size) if size else None
    order = take_order(
        student, precision=precision, known=KNOWN, out=out, suffix=".pte", calibration=calibration, force=force,
        reasons=REASONS,
    )  # fmt: skip
    written = export_executorch(order.student, order.target, order.precision, sizes=sizes, largest=largest)
    print(f"{written.summary()}; {written.outside()}")
    print(f"check it: python -m runtime.parity STUDENT.pt {written.path}")


if __name__ == "__main__":
    command_line(main)
