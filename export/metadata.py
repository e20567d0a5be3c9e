"""What travels inside every exported file, so that no runtime has to guess. Needs no torch.

In a .tflite the JSON below is a metadata buffer named `pocketsr.json`, in an .onnx an entry of its metadata_props, in an
.mlpackage one of its user-defined metadata, in a .pte what the method `pocketsr_json` returns; beside a .param and its .bin
it is a third file, which names their hashes.
"""

import builtins
import dataclasses
import itertools
import json
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from compress.errors import BadInput, Unavailable
from compress.files import parse_json, sha256
from export.tflite_entry import MAGIC, Damaged, read_entry

Precision = Literal["float32", "float16", "int8", "int16x8", "mixed", "int8-weights", "int8-dynamic"]
INTEGER: tuple[Precision, ...] = ("int8", "int16x8", "mixed")
"""Precisions of files that compute what an int8 student computes, with its own scales, from pixels to pixels."""
PixelType = Literal["float32", "uint8", "int8"]
Layout = Literal["NHWC", "NCHW"]
Sizes = Literal["any"] | list[list[int]]
ENTRY = "pocketsr.json"
VERSION = 1


@dataclass(frozen=True)
class Image:
    """How an image enters or leaves a file.

    Attributes:
        dtype: 'float32' (values in [0, 1]), 'uint8' (pixels) or 'int8' (pixel - 128).
        layout: 'NHWC' or 'NCHW'.
        color: order of the channels.
        scale, zero_point: real value = scale * (integer - zero point); None for float.
    """

    dtype: PixelType
    layout: Layout = "NHWC"
    color: str = "RGB"
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The contents of `pocketsr.json`.

    Attributes:
        architecture, scale: of the student.
        precision: of weights and activations; 'float16' and 'int8-weights' of the weights alone. 'int16x8' has int8
            weights and 16-bit values, 'mixed' int8, int16 and float layers; their images are pixels as in 'int8'.
            'int8-dynamic' has int8 weights, and activations whose scale is that of every single image.
        value_range: of real-valued pixels.
        input, output: the LR image and the SR image.
        receptive_radius: LR pixels that a tile must overlap its neighbours by; None if no overlap is exact.
        sizes: 'any', or a list of [height, width] of LR images that the file takes.
        largest: height and width that 'any' ends at; None where it has no end.
        student_sha256: of the student.pt that it was made from.
        quality: measured metrics of the student, each row with its protocol.
        calibration: how the scales were chosen, for int8.
        producer: versions of the programs that wrote the file.
    """

    architecture: str
    scale: int
    precision: Precision
    value_range: tuple[float, float]
    input: Image
    output: Image
    receptive_radius: int | None
    sizes: Sizes
    student_sha256: str
    quality: list[dict[str, Any]]
    calibration: dict[str, Any] | None
    producer: dict[str, str]
    largest: int | None = None
    version: int = VERSION

    def to_json(self) -> str:
        """Readable JSON with sorted keys."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str, source: str) -> "Metadata":
        """The inverse of `to_json`. Raises BadInput, naming `source`, for anything else."""
        try:
            plain = parse_json(text)
            if plain["version"] > VERSION:
                raise BadInput(
                    f"expected metadata version {VERSION}, found {plain['version']} in {source}: update pocketsr to read it."
                )
            json.dumps(plain, ensure_ascii=False).encode()  # half a surrogate pair could not be printed
            plain["value_range"] = tuple(plain["value_range"])
            images = {end: Image(**plain[end]) for end in ("input", "output")}
            metadata = cls(**{**plain, **images})
            _check_values(metadata)
            return metadata
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            said = (ascii(str(error))[1:-1] or type(error).__name__)[:200]  # it may quote the file
            raise BadInput(
                f"expected the metadata that pocketsr writes, found something else in {source} ({said}): export it again."
            ) from error


def read_ncnn(path: str | Path) -> tuple[Metadata, tuple[str, str]]:
    """What the .json beside a .param says of it and its .bin, and the names of the input and the output blob.

    Raises:
        BadInput: one of the three is missing, or the .json speaks of other files.
    """
    param = Path(path)
    beside, weights = param.with_suffix(".json"), param.with_suffix(".bin")
    for file, what in ((param, "a .param file"), (weights, "the .bin of the .param"), (beside, "its metadata")):
        if not file.is_file():
            raise BadInput(f"expected {what}, found nothing at {file}: keep the .param, .bin and .json together.")
    try:
        plain = parse_json(beside.read_text(encoding="utf-8"))
        hashes = {file: plain.pop(f"{file.suffix[1:]}_sha256") for file in (param, weights)}
        blobs = plain.pop("blobs")
        names = str(blobs["input"]), str(blobs["output"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadInput(
            f"expected the metadata that pocketsr writes, found something else in {beside} ({error}): export it again."
        ) from error
    for file, wanted in hashes.items():
        if sha256(file) != wanted:
            raise BadInput(f"expected the file that {beside} describes, found another in {file}: export it again.")
    return Metadata.from_json(json.dumps(plain), str(beside)), names


def read_tflite(path: str | Path) -> Metadata | None:
    """The metadata of a .tflite; None where it has none (a file of another program). Needs nothing of LiteRT.

    Raises:
        BadInput: no such file, not a .tflite, or a damaged one.
    """
    path = Path(path)
    _check_tflite(path)
    try:
        with path.open("rb") as file:
            content = read_entry(file, ENTRY.encode())
        text = None if content is None else content.decode()
    except (Damaged, UnicodeDecodeError) as error:
        raise BadInput(
            f"expected a whole .tflite, found a damaged one in {path} ({error}): export it again."
        ) from error
    return None if text is None else Metadata.from_json(text, str(path))


def tflite_model(path: str | Path) -> Any:
    """The parsed flatbuffer (`ModelT`) of a .tflite.

    Raises:
        BadInput: anything else.
        Unavailable: ai-edge-litert, which has the schema, is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ModuleNotFoundError as error:
        raise Unavailable(
            "expected ai-edge-litert, whose schema a .tflite's operators are read with, found it missing: "
            "pip install ai-edge-litert."
        ) from error
    path = Path(path)
    _check_tflite(path)
    content = path.read_bytes()
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
        if not model.subgraphs or not model.operatorCodes:
            raise ValueError("no graph in it")
        return model
    except Exception as error:  # flatbuffers raises struct.error, IndexError, TypeError... on damaged content
        raise BadInput(f"expected a whole .tflite, found a damaged one in {path}: export it again.") from error


def _check_tflite(path: Path) -> None:
    if not path.is_file():
        raise BadInput(f"expected a .tflite file, found nothing at {path}: check the path.")
    with path.open("rb") as file:
        if file.read(8)[4:] != MAGIC:
            raise BadInput(f"expected a .tflite file, found some other kind of file in {path}: check the path.")


def _check_values(metadata: Metadata) -> None:
    """Raises TypeError for a field that holds another type than the class says, ValueError for sizes of no image."""
    for part in (metadata, metadata.input, metadata.output):
        for name, kind in get_type_hints(type(part)).items():
            if not _fits(getattr(part, name), kind):
                raise TypeError(f"{name}: {getattr(part, name)!a:.40}")
    sizes = [] if metadata.sizes == "any" else metadata.sizes
    counts = [metadata.scale, 1 if metadata.largest is None else metadata.largest, *itertools.chain(*sizes)]
    if min(counts) < 1 or metadata.sizes == [] or any(len(size) != 2 for size in sizes):
        raise ValueError("a size that no image has")


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type as the fields above declare them; whole numbers are floats, too, and bools are none."""
    inner = get_args(kind)
    match get_origin(kind) or kind:
        case typing.Any:
            return True
        case typing.Literal:
            return isinstance(value, str) and value in inner
        case typing.Union | types.UnionType:
            return any(_fits(value, one) for one in inner)
        case builtins.list:
            return isinstance(value, list) and all(_fits(one, inner[0]) for one in value)
        case builtins.tuple:
            return isinstance(value, tuple) and len(value) == len(inner) and all(map(_fits, value, inner))
        case builtins.dict:
            return isinstance(value, dict) and all(_fits(one, inner[1]) for one in value.values())
        case builtins.float:
            return type(value) in (int, float)
        case builtins.str:
            return isinstance(value, str) and value.isprintable()
        case plain:
            return type(value) is plain
