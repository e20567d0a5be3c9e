"""`python -m export.ncnn student.pt`: a student as .param and .bin for ncnn, which the desktop upscalers run on Vulkan.

A third file, .json, has the metadata and the hashes of the two: ncnn's own loader would pass over a comment, but other
programs that read a .param take every line for a layer.
"""

import importlib
import json
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from compress.checkpoint import Student
from compress.cli import command_line
from compress.errors import BadInput
from compress.files import sha256, written_atomically
from export.chatter import logged
from export.culprit import converted
from export.exporting import ExportedFile, describe, parts, sizes_of
from export.metadata import Precision, Sizes, read_ncnn
from export.order import parse_sizes, take_order

KNOWN: tuple[Precision, ...] = ("float32", "float16")
REASONS: Mapping[str, str] = {
    "int8": "ncnn makes its own int8 scales, of another kind than the student's",
    "int16x8": "ncnn has no 16-bit integers",
    "mixed": "ncnn makes its own int8 scales, of another kind than the student's",
    "int8-weights": "ncnn's int8 weights come with int8 values",
    "int8-dynamic": "ncnn has no activations of dynamic range",
}
PRODUCERS = ("torch", "pnnx", "ncnn")
NAMES = ("data", "output")
MAGIC = "7767517"
EXAMPLE = 64
LIMIT = 600.0  # seconds


@dataclass(frozen=True)
class NcnnFile(ExportedFile):
    """A .param with the .bin and the .json beside it."""

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(self.path.with_suffix(suffix) for suffix in (".param", ".bin", ".json"))


def export_ncnn(
    student: Student,
    path: str | Path,
    precision: Precision,
    *,
    sizes: Sizes | None = None,
    names: tuple[str, str] = NAMES,
) -> NcnnFile:
    """Writes a student as NAME.param, NAME.bin and NAME.json, RGB in [0, 1].

    Args:
        student: saved or loaded, so that its file's hash is known.
        path: of the .param. What the converter prints goes to a .log beside it.
        precision: 'float32' or 'float16', of the weights in the .bin; ncnn chooses the arithmetic when it loads them.
        sizes: (height, width) of LR images; None is any where the network allows it, else 64x64.
        names: of the blobs with the LR and with the SR image.

    Raises:
        BadInput: a precision that ncnn does not have, sizes that the network does not have, pnnx missing, a converter
            that fails, or a written file that ncnn does not load; nothing is written then.
    """
    path = Path(path)
    if precision not in KNOWN:
        reason = REASONS.get(precision, "choose one")
        raise BadInput(f"expected a precision out of {', '.join(KNOWN)}, found {precision!r}: {reason}.")
    require_ncnn()
    metadata = describe(student, precision, layout="NCHW", producers=PRODUCERS, sizes=sizes_of(student, sizes))
    size = (EXAMPLE, EXAMPLE) if metadata.sizes == "any" else tuple(metadata.sizes[0])
    log = path.with_suffix(".log")
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "student.param"
        with logged(log, path.name):
            _converted(student, precision, torch.zeros(1, 3, *size), made)
            layers = _rename(made, names)
        with (  # the last one to get its name is the one that users open
            written_atomically(path) as param,
            written_atomically(path.with_suffix(".json")) as beside,
            written_atomically(path.with_suffix(".bin")) as weights,
        ):
            param.write_bytes(made.read_bytes())
            weights.write_bytes(made.with_suffix(".bin").read_bytes())
            hashes = {"param_sha256": sha256(param), "bin_sha256": sha256(weights)}
            blobs = {"blobs": {"input": names[0], "output": names[1]}}
            plain = {**json.loads(metadata.to_json()), **hashes, **blobs}
            beside.write_text(json.dumps(plain, indent=1, sort_keys=True), encoding="utf-8")
            with logged(log, path.name):
                _load(param, weights, names, metadata.scale, size)
    if read_ncnn(path) != (metadata, names):
        raise BadInput(
            f"expected the metadata that was written, found other in {path.with_suffix('.json')}: report it to us."
        )
    return NcnnFile(path, metadata, layers)


def require_ncnn() -> None:
    """Raises BadInput where ncnn or pnnx is not installed."""
    for name in ("ncnn", "pnnx"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise BadInput(
                f"expected ncnn and pnnx for a .param, found no {name}: pip install 'pocketsr[ncnn]'."
            ) from error


def _converted(student: Student, precision: Precision, example: Tensor, param: Path) -> None:
    """Writes `param` and the .bin beside it; says where a converter fails."""
    if not student.has_graph:
        _convert(student.fixed(*example.shape[2:]), example, precision, param)
        return
    from export.lowering.ncnn import NcnnGraph

    graph, _ = parts(student, precision)
    converted(graph, lambda part: _convert(NcnnGraph(part).eval(), example, precision, param))


def _convert(network: nn.Module, example: Tensor, precision: Precision, param: Path) -> None:
    """Runs pnnx in the folder of `param`, which also gets its many other files."""
    import pnnx

    traced = torch.jit.trace(network, example)
    traced.save(str(param.with_suffix(".pt")))
    shape = ",".join(map(str, example.shape))
    options = [f"inputshape=[{shape}]f32", f"fp16={int(precision == 'float16')}"]
    options += [f"ncnnparam={param.name}", f"ncnnbin={param.with_suffix('.bin').name}"]
    subprocess.run([pnnx.EXEC_PATH, f"{param.stem}.pt", *options], cwd=param.parent, check=True, timeout=LIMIT)


def _rename(param: Path, names: tuple[str, str]) -> Counter[str]:
    """Gives the blobs in0 and out0 of pnnx their names; returns the layers by type.

    Raises:
        ValueError: something that pnnx did not turn into layers of ncnn.
    """
    wanted = {"in0": names[0], "out0": names[1]}
    magic, counts, *lines = param.read_text(encoding="utf-8").splitlines()
    if magic != MAGIC or len(lines) != int(counts.split()[0]):
        raise ValueError("pnnx wrote no .param")
    renamed, layers = [magic, counts], Counter()
    for line in lines:
        kind, name, inputs, outputs, *rest = line.split()
        blobs = int(inputs) + int(outputs)
        rest[:blobs] = [wanted.get(one, one) for one in rest[:blobs]]
        renamed.append(f"{kind:<24} {wanted.get(name, name):<24} {inputs} {outputs} {' '.join(rest)}")
        layers[kind] += 1
    if foreign := [kind for kind in layers if "." in kind or kind.startswith(("aten", "prim", "nn_", "F_", "torch_"))]:
        raise ValueError(f"pnnx has no ncnn layer for {', '.join(foreign)}")
    param.write_text("\n".join(renamed) + "\n", encoding="utf-8")
    return layers


def _load(param: Path, weights: Path, names: tuple[str, str], scale: int, size: tuple[int, ...]) -> None:
    """Opens the written files with ncnn and runs an empty image. Raises RuntimeError where that is not what it should be."""
    import ncnn
    import numpy as np

    net = ncnn.Net()
    if net.load_param(str(param)) or net.load_model(str(weights)):
        raise RuntimeError("ncnn does not load what pnnx wrote")
    extractor = net.create_extractor()
    extractor.input(names[0], ncnn.Mat(np.zeros((3, *size), np.float32)).clone())
    _, made = extractor.extract(names[1])
    if (made.c, made.h, made.w) != (3, *(side * scale for side in size)):
        raise RuntimeError(f"ncnn makes {made.w}x{made.h} of {size[1]}x{size[0]} pixels")


def main(
    student: Path,
    *,
    precision: Precision | None = None,
    out: Path | None = None,
    size: str | None = None,
    names: str = ",".join(NAMES),
    force: bool = False,
) -> None:
    """Exports a student to ncnn, for Real-ESRGAN-ncnn-vulkan, upscayl, chaiNNer and other programs on ncnn.

    Args:
        student: student.pt; of an int8 one the float weights.
        precision: float32 or float16, of the weights in the file; left out, float32.
        out: the .param to write, with the .bin and .json of the same name beside it; left out, the student's name with
            the precision, beside it.
        size: 'any', or sizes of the LR image as HEIGHTxWIDTH, several with commas between them; left out, any where the
            network allows it, else 64x64.
        names: of the input and the output blob, with a comma between them. 'data,output' is what Real-ESRGAN-ncnn-vulkan
            and upscayl look for, 'in0,out0' what pnnx calls them.
        force: replace existing files.
    """
    blobs = names.split(",")
    if len(blobs) != 2 or not all(blobs) or blobs[0] == blobs[1] or any(" " in one for one in blobs):
        raise BadInput(f"expected two names with a comma between them, found {names!r}: use for example data,output.")
    order = take_order(
        student, precision=precision or "float32", known=KNOWN, out=out, suffix=".param", calibration=None, force=force,
        reasons=REASONS,
    )  # fmt: skip
    for file in (order.target.with_suffix(".bin"), order.target.with_suffix(".json")):
        if file.exists() and not force:
            raise BadInput(
                f"expected a new file, found that {file} exists: give another --out, or --force to replace it."
            )
    sizes = parse_sizes(size) if size else None
    written = export_ncnn(order.student, order.target, order.precision, sizes=sizes, names=(blobs[0], blobs[1]))
    print(f"{written.summary()}; blobs {blobs[0]} and {blobs[1]}")
    print(f"check it: python -m runtime.parity STUDENT.pt {written.path}")


if __name__ == "__main__":
    command_line(main)
