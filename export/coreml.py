"""`python -m export.coreml student.pt`: a student as an .mlpackage for iOS and macOS, picture in, picture out.

Writes on any system; only Apple's can run the result. `runtime.parity` evaluates its operators where Core ML is not.
"""

import contextlib
import functools
import logging
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from compress.checkpoint import Student
from compress.cli import command_line
from compress.errors import BadInput
from export.chatter import logged
from export.culprit import converted
from export.exporting import QUANTIZED, ExportedFile, describe, has_masks, parts, sizes_of
from export.metadata import ENTRY, INTEGER, Metadata, Precision, Sizes
from export.mlpackage import import_coremltools
from export.order import parse_sizes, take_order
from export.sparse.masked import masked_steps
from export.sparse.report import compare, print_comparisons

KNOWN: tuple[Precision, ...] = ("float32", "float16", "int8", "mixed", "int8-weights")
TARGETS = ("iOS17", "iOS18")
COMPUTE = {"float32": "float32", "float16": "float16", "int8": "float32", "mixed": "float32", "int8-weights": "float16"}
REASONS: Mapping[str, str] = {
    "int16x8": "its `quantize` has no 16-bit integers, so export to TFLite or ONNX",
    "int8-dynamic": "Core ML has no activations of dynamic range, so ask for int8-weights",
}
PRODUCERS = ("torch", "coremltools")


def export_coreml(
    student: Student,
    path: str | Path,
    precision: Precision,
    *,
    sizes: Sizes | None = None,
    target: str | None = None,
    compute: str | None = None,
    sparse: bool = False,
) -> ExportedFile:
    """Writes a student as an .mlpackage (ML Program) that takes and gives 8-bit RGB pictures, with metadata inside.

    Args:
        student: saved or loaded, so that its file's hash is known; an int8 one for 'int8' and 'int8-weights'.
        path: of the package, a folder that must not exist.
        precision: 'float32', 'float16', 'int8' (weights and activations), 'mixed' (int8 and float layers),
            'int8-weights'.
        sizes: (height, width) of LR pictures, or 'any'; None is any where the network allows it, else 64x64. The Neural
            Engine wants them named.
        target: 'iOS17' (macOS 14) or 'iOS18' (macOS 15), the least system that can open it; None: iOS18 for sparse
            integers, which iOS17 does not have, else iOS17.
        compute: 'float32' or 'float16', the type of real values; None: float32 for 'float32' and for 'int8', whose
            integers then are the student's, else float16.
        sparse: store masked weights sparse; see `export.sparse.coreml`.

    Raises:
        BadInput: a float student for integers, integers or sizes that the network does not have, an unknown target or
            compute, a converter that fails, a package that reads back as something else, or for `sparse` a student
            without masks or integers for iOS17; nothing is written then.
    """
    path = Path(path)
    target = target or default_target(precision, sparse)
    for option, value, known in (("target", target, TARGETS), ("compute", compute, (None, "float32", "float16"))):
        if value not in known:
            names = ", ".join(one for one in known if one)
            raise BadInput(f"expected {option} out of {names}, found {value!r}: choose one.")
    if student.quantization and precision in INTEGER and "int16" in student.quantization.arithmetic.values():
        raise BadInput(
            "expected int8 and float layers for Core ML, found int16 ones, which its `quantize` does not have: export this "
            "student to TFLite or ONNX, or quantize it with --int16_cost 1000."
        )
    metadata = describe(
        student, precision, layout="NCHW", producers=PRODUCERS, pixels="uint8", pictures=True,
        sizes=sizes_of(student, sizes),
    )  # fmt: skip
    graph, quantization = parts(student, precision) if student.has_graph else (None, None)
    network = None if graph else student.fixed(*metadata.sizes[0])
    if default_target(precision, sparse) == "iOS18" and target != "iOS18":
        raise BadInput(
            f"expected the target iOS18 for sparse {precision} weights, found {target}, which has sparse floats only: "
            "give --target iOS18, or leave --sparse out."
        )
    steps = masked_steps(student) if sparse else frozenset()
    log = path.with_suffix(".log")
    log.unlink(missing_ok=True)
    with _quiet_coremltools(), tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        with logged(log, path.name):
            import_coremltools()  # which has much to say
            from export.lowering.coreml import coreml_model
            from export.lowering.coreml_fixed import coreml_fixed

            chosen: Any = compute or COMPUTE[precision]
            if graph:
                options: Any = {"compute": chosen, "target": target, "sizes": metadata.sizes, "sparse": steps}
                model = converted(
                    graph, lambda part: coreml_model(part, quantization, precision, picture=part is graph, **options)
                )
            else:
                model = coreml_fixed(network, metadata.sizes[0], compute=chosen, target=target)
            model.short_description = f"PocketSR {metadata.architecture} x{metadata.scale} {precision}"
            model.user_defined_metadata[ENTRY] = metadata.to_json()
            model.save(str(made))
        operators = _read_back(made, metadata)
        _move(made, path)
    return ExportedFile(path, metadata, operators)


def default_target(precision: Precision, sparse: bool) -> str:
    """The least system that can open such a package."""
    return "iOS18" if sparse and precision in QUANTIZED else "iOS17"


def _move(made: Path, path: Path) -> None:
    """Puts a finished folder in its place: complete or not at all, and on another disk too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        for file in sorted(made.rglob("*")):  # not copytree, whose errors hide what the system said
            target = part / file.relative_to(made)
            if file.is_dir():
                target.mkdir(parents=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        if path.exists():
            shutil.rmtree(path)
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _read_back(package: Path, metadata: Metadata) -> Mapping[str, int]:
    """Operators of the written package. Raises BadInput where it is not what its metadata says."""
    ct = import_coremltools()
    spec = ct.models.MLModel(str(package), skip_model_load=True).get_spec()
    images = [one.type.WhichOneof("Type") for one in (*spec.description.input, *spec.description.output)]
    if images != ["imageType", "imageType"] or spec.description.metadata.userDefined.get(ENTRY) != metadata.to_json():
        raise BadInput(f"expected two pictures and our metadata, found {', '.join(images)}: report it to us.")
    main = spec.mlProgram.functions["main"]
    operations = main.block_specializations[main.opset].operations
    return Counter(operation.type for operation in operations if operation.type != "const")


@contextlib.contextmanager
def _quiet_coremltools() -> Iterator[None]:
    """Its loggers write to the standard error that they found when they were made."""
    logger = logging.getLogger("coremltools")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def main(
    student: Path,
    *,
    precision: Precision | None = None,
    out: Path | None = None,
    size: str | None = None,
    target: str | None = None,
    compute: str | None = None,
    calibration: str | None = None,
    sparse: bool = False,
    force: bool = False,
) -> None:
    """Exports a student to Core ML.

    Args:
        student: student.pt, float or int8.
        precision: float32, float16, int8, mixed or int8-weights; left out, that of the student.
        out: the .mlpackage to write; left out, the student's name with the precision, beside it.
        size: 'any', or sizes of the LR picture as HEIGHTxWIDTH, several with commas between them; left out, any where
            the network allows it, else 64x64. The Neural Engine wants sizes that are named.
        target: iOS17 (macOS 14) or iOS18 (macOS 15), the least system that can open it; left out, iOS18 for sparse
            integers, else iOS17.
        compute: float32 or float16, the type of real values. The Neural Engine wants float16; int8 then rounds in other
            places than the student.
        calibration: folder of photographs, or 'skimage', to quantize a float student with; the int8 student is then
            written beside the package, for parity checks.
        sparse: store the zeros of a student with 2:4, block or other masks as one bit each.
        force: replace an existing package.
    """
    sizes = parse_sizes(size) if size else None
    order = take_order(
        student, precision=precision, known=KNOWN, out=out, suffix=".mlpackage", calibration=calibration, force=force,
        sparse=sparse, reasons=REASONS,
    )  # fmt: skip
    write = functools.partial(
        export_coreml, order.student, precision=order.precision, sizes=sizes, target=target, compute=compute
    )
    written = write(order.target, sparse=sparse)
    print(f"{written.summary()}; {target or default_target(order.precision, sparse)} or newer")
    if has_masks(order.student):
        print_comparisons([compare(order.student, written, write, sparse=sparse)])
    print(f"check it: python -m runtime.parity STUDENT.pt {written.path}")


if __name__ == "__main__":
    command_line(main)
