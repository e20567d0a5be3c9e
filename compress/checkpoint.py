"""student.pt: one self-describing file per student. Nothing in it is ever executed."""

import dataclasses
import pickle
import pickletools
import struct
import warnings
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress import files
from compress.deploy import DeployGraph
from compress.errors import BadInput, shown
from compress.models import ARCHITECTURES, build
from compress.models.fixed import FixedSize
from compress.pruning.masks import Masks
from compress.quantization.integer import IntegerStudent
from compress.quantization.scheme import Quantization

FORMAT = "pocketsr.student"
VERSION = 1
VALUE_RANGE = (0.0, 1.0)
FIELDS = {
    "architecture": str,
    "config": dict,
    "scale": int,
    "value_range": list,
    "weights": dict,
    "quantization": (dict, type(None)),
    "sparsity": (dict, type(None)),
    "receptive_radius": (int, type(None)),
    "provenance": dict,
    "metrics": list,
}


@dataclass(frozen=True, kw_only=True)
class Student:
    """A network with all that is needed to rebuild, export and judge it.

    Attributes:
        architecture: a name in `compress.models.ARCHITECTURES`.
        config: options of the architecture.
        weights: the state dict of the float network (branches merged).
        quantization: the int8 form, or None for a float student.
        sparsity: masks of `weights` that fine-tuning, quantization and export keep, or None.
        provenance: recipe, teacher, data manifest hash, steps, versions.
        metrics: result rows, each with its protocol.
        file_hash: SHA-256 of the file it was read from; None before it is saved.
    """

    architecture: str
    config: dict[str, Any]
    weights: dict[str, Tensor]
    quantization: Quantization | None = None
    sparsity: Masks | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    file_hash: str | None = None

    @classmethod
    def of(cls, network: nn.Module, **details: Any) -> "Student":
        """The student that a network of `compress.models` is, branches merged; `details` fill the other fields."""
        plain = network.merged()
        name = next(name for name, known in ARCHITECTURES.items() if type(plain) is known.network)
        weights = {key: value.detach().cpu().clone() for key, value in plain.state_dict().items()}
        return cls(architecture=name, config=dataclasses.asdict(plain.config), weights=weights, **details)

    @property
    def scale(self) -> int:
        return int(self.config["scale"])

    @property
    def precision(self) -> str:
        """'float32', or that of a quantized student: 'int8', 'int16x8' or 'mixed'."""
        return self.quantization.precision if self.quantization else "float32"

    def network(self) -> nn.Module:
        """The float network with its weights, in eval mode."""
        network = build(self.architecture, self.config)
        network.load_state_dict(self.weights)
        return network.eval()

    @property
    def has_graph(self) -> bool:
        """Whether the network fits the deploy graph, which takes images of any size and can be int8."""
        return hasattr(ARCHITECTURES[self.architecture].network, "deploy")

    def deploy(self) -> DeployGraph:
        """The float network as it ships. Raises BadInput for an architecture that does not fit the deploy graph."""
        if not self.has_graph:
            fitting = ", ".join(name for name, known in ARCHITECTURES.items() if hasattr(known.network, "deploy"))
            raise BadInput(
                f"expected an architecture whose operators fit the deploy graph ({fitting}), found {self.architecture!r}: "
                "export it in float at one image size, or distil a student from it."
            )
        return self.network().deploy()

    def fixed(self, height: int, width: int) -> FixedSize:
        """The float network as it ships for LR images of one size, where it does not fit the deploy graph.

        Raises BadInput for a size that the network cannot take.
        """
        return self.network().fixed(height, width).eval()

    def reference(self) -> nn.Module:
        """What exported files are held against: int8 arithmetic for an int8 student, else the float network."""
        return IntegerStudent(self.deploy(), self.quantization) if self.quantization else self.network()


def save_student(student: Student, path: str | Path) -> str:
    """Writes student.pt atomically and returns its SHA-256.

    The file is a dict that `torch.load(weights_only=True)` accepts, made of containers, numbers, strings, tensors.

    Raises:
        BadInput: masks that do not fit the weights.
    """
    network = student.network()
    _check_masks(student, Path(path))
    radius = network.deploy().receptive_radius() if student.has_graph else None
    content = {
        "format": FORMAT,
        "version": VERSION,
        "architecture": student.architecture,
        "config": student.config,
        "scale": student.scale,
        "value_range": list(VALUE_RANGE),
        "weights": student.weights,
        "quantization": student.quantization.to_dict() if student.quantization else None,
        "sparsity": student.sparsity.to_dict() if student.sparsity else None,
        "receptive_radius": radius,
        "provenance": student.provenance,
        "metrics": student.metrics,
    }
    with files.written_atomically(path) as part, part.open("wb") as file:
        torch.save(content, file)  # given a path, it would put the temporary name into the file
    return files.sha256(path)


def load_student(path: str | Path) -> Student:
    """Reads student.pt.

    Raises:
        BadInput: missing, not a checkpoint, would run code, truncated or damaged, another program's weights, newer
            format, unknown architecture, or weights, scales or masks that do not fit; each with its own sentence.
    """
    path = Path(path)
    content = read_tensors(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BadInput(
            f"expected a student.pt, found weights of another program in {path}: import published weights with "
            "`python -m compress.published`, or train a student with `python -m compress.train`."
        )
    version = content.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise BadInput(
            f"expected format version {VERSION} of student.pt, found version {shown(version)} in {path}: "
            "update pocketsr to read it."
        )
    for name, kind in FIELDS.items():
        if not isinstance(content.get(name, ...), kind):
            found = "nothing" if name not in content else type(content[name]).__name__
            raise BadInput(
                f"expected the field {name!r} in {path}, found {found}: the file was not written by pocketsr."
            )
    student = Student(
        architecture=content["architecture"],
        config=content["config"],
        weights=content["weights"],
        quantization=_read_quantization(content["quantization"], path),
        sparsity=_read_masks(content["sparsity"], path),
        provenance=content["provenance"],
        metrics=content["metrics"],
        file_hash=files.sha256(path),
    )
    _check_consistent(student, content, path)
    return student


def read_tensors(path: Path) -> Any:
    """`torch.load(weights_only=True)` with a sentence for everything that can be wrong with the file itself."""
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no file"
        raise BadInput(f"expected a checkpoint file, found {what} at {path}: check the path.")
    with path.open("rb") as file:
        start = file.read(4)
    zipped = _is_archive(path)
    if start == b"PK\x03\x04" and not zipped:
        raise BadInput(f"expected a whole checkpoint, found a truncated one in {path}: copy or download it again.")
    if not zipped and start[:1] != b"\x80":
        raise BadInput(f"expected a PyTorch checkpoint, found some other kind of file in {path}: check the path.")
    if zipped and not _checksums_hold(path):  # torch.load does not look at them
        raise BadInput(f"expected a whole checkpoint, found a damaged one in {path}: copy or download it again.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what matters is raised
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "global" in str(error).lower() or (not zipped and _names_code(path)):
            raise BadInput(
                f"expected a checkpoint of tensors only, found one that runs code when opened in {path}: it was not "
                "opened; save its state dict alone with torch.save, on a machine where you trust it."
            ) from error
        raise BadInput(
            f"expected a PyTorch checkpoint, found a file that is not one in {path}: check the path."
        ) from error
    except Exception as error:  # damaged opcodes lead the unpickler anywhere
        raise BadInput(
            f"expected a whole checkpoint, found a damaged one in {path}: copy or download it again."
        ) from error


def _is_archive(path: Path) -> bool:
    """Whether the file is a zip archive, or was one."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return True


def _checksums_hold(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OSError,
        ValueError,
        struct.error,
    ):
        return False


def _names_code(path: Path) -> bool:
    """Whether a plain pickle names classes or functions to call; reads its opcodes, runs none."""
    try:
        with path.open("rb") as file:
            return any(opcode.name in ("GLOBAL", "STACK_GLOBAL", "INST") for opcode, _, _ in pickletools.genops(file))
    except (ValueError, EOFError, UnicodeDecodeError):
        return False


def _read_quantization(plain: dict[str, Any] | None, path: Path) -> Quantization | None:
    try:
        return None if plain is None else Quantization.from_dict(plain)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise BadInput(
            f"expected the scales of an int8 student in {path}, found unusable ones ({error}): quantize it again."
        ) from error


def _read_masks(plain: dict[str, Any] | None, path: Path) -> Masks | None:
    try:
        return None if plain is None else Masks.from_dict(plain)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(
            f"expected the masks of a pruned student in {path}, found unusable ones ({error}): prune it again."
        ) from error


def _check_masks(student: Student, path: Path) -> None:
    if student.sparsity:
        layers = student.quantization.layers if student.quantization else {}
        try:
            student.sparsity.check(student.network(), {name: layer.weight for name, layer in layers.items()})
        except ValueError as error:
            raise BadInput(
                f"expected masks that fit the weights in {path}, found that {error}: prune it again."
            ) from error


def _numbers(values: list[Any]) -> list[Any]:
    """The same where all are numbers, which can be compared; else nothing."""
    return values if all(isinstance(value, (int, float)) for value in values) else []


def _check_consistent(student: Student, content: dict[str, Any], path: Path) -> None:
    """Builds what the file describes, so that a file that loads is a file that runs."""
    try:
        with torch.device("meta"):  # takes no memory: the sizes may be anything
            network = build(student.architecture, student.config)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
    try:
        network.load_state_dict(student.weights, assign=True)
        scale = student.network().config.scale
    except (RuntimeError, AttributeError, TypeError) as error:
        detail = str(error).strip().splitlines()[-1].strip()
        raise BadInput(
            f"expected weights that fit the {student.architecture} of {path}, found others: {detail} "
            "Use the file as it was written by the training."
        ) from error
    stated = (content["scale"], student.config.get("scale"))
    if stated != (scale, scale) or _numbers(content["value_range"]) != list(VALUE_RANGE):
        raise BadInput(
            f"expected scale {scale} and value range {list(VALUE_RANGE)} in {path}, found "
            f"{content['scale']} and {shown(content['value_range'])}: the file was edited; use the original."
        )
    if student.quantization:
        try:
            student.reference()
        except ValueError as error:
            raise BadInput(
                f"expected scales that fit the network in {path}, found that {error}: quantize it again."
            ) from error
    _check_masks(student, path)
