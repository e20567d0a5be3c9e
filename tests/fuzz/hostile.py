"""Files made by hand to do harm: code in pickles and YAML, bombs of zip, PNG and aliases, numbers without end."""

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper

from compress.checkpoint import FORMAT, VERSION
from export.metadata import ENTRY

GIBIBYTE = 2**30
DEEP = 100_000

POSTSCRIPT = b"%%!PS-Adobe-3.0 EPSF-3.0\n%%%%BoundingBox: 0 0 9 9\n(%b) (w) file closefile\n%%%%EOF\n"

Files = dict[str, Callable[[], bytes]]
"""What makes each file, by name."""


class _Harm:
    """Unpickling it writes a file."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.canary,))


def checkpoints(canary: Path) -> Files:
    """By name; a reader that runs code leaves `canary`."""
    return {
        "pickle.pt": lambda: pickle.dumps(_Harm(canary)),
        "pickled_in_zip.pt": lambda: _saved({"format": FORMAT, "version": VERSION, "weights": _Harm(canary)}),
        "zip_bomb.pt": _zip_bomb,
        "huge_config.pt": lambda: _student({"scale": 4, "channels": 10**7, "blocks": 10**6}),
        "huge_scale.pt": lambda: _student({"scale": 10**6, "channels": 8, "blocks": 1}),
        "endless_number.pt": lambda: _student({"scale": 10**300, "channels": 8, "blocks": 1}),
        "empty.pt": lambda: b"",
        "self_containing.pt": _self_containing,
    }


def images(canary: Path) -> Files:
    """Pictures that claim to be huge, and other things that are none."""
    return {
        "bomb.png": lambda: _png(60_000, 60_000, zlib.compress(bytes(10**7), 9)),
        "largest.png": lambda: _png(2**31 - 1, 2**31 - 1, b""),
        "flat.png": lambda: _png(0, 5, zlib.compress(b"")),
        "text_bomb.png": lambda: _png(4, 4, zlib.compress(bytes(4 * 13)), (b"zTXt", _inflating())),
        "profile_bomb.png": lambda: _png(4, 4, zlib.compress(bytes(4 * 13)), (b"iCCP", _inflating())),
        "empty.jpg": lambda: b"",
        "picture.svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "script.eps": lambda: POSTSCRIPT % bytes(canary),
        "endless.pnm": lambda: b"P6 99999 99999 255\n",
        "deep.tiff": _looping_tiff,
    }  # fmt: skip


def yaml_texts(canary: Path) -> Files:
    """Recipes that run code, or grow without end."""
    return {
        "code.yaml": lambda: b"model: !!python/object/apply:os.mkdir [%b]\n" % bytes(canary),
        "aliases.yaml": _aliases,
        "merged_aliases.yaml": _merged_aliases,
        "itself.yaml": lambda: b"model: &a\n  architecture: *a\nschedule: *a\n",
        "deep.yaml": lambda: b"[" * DEEP,
        "deep_block.yaml": lambda: b"- " * DEEP,
        "long_number.yaml": lambda: b"schedule: {steps: " + b"9" * 10**6 + b"}\n",
        "control.yaml": lambda: b"model: \x07\n",
        "utf16.yaml": lambda: "model: x".encode("utf-16"),
        "zero.yaml": lambda: b"",
    }  # fmt: skip


def json_texts(canary: Path) -> Files:
    """JSON that is deep, long, or no object."""
    return {
        "deep.json": lambda: b"[" * DEEP + b"]" * DEEP,
        "long_number.json": lambda: b'{"architecture": "edsr", "options": {"scale": ' + b"9" * 10**6 + b"}}",
        "not_finite.json": lambda: b'{"architecture": "edsr", "options": {"scale": NaN}}',
        "no_object.json": lambda: b"7",
        "empty.json": lambda: b"",
        "binary.json": lambda: bytes(range(256)),
    }


def onnx_files(canary: Path) -> Files:
    """Networks that point outside of the file, claim huge tensors, or call themselves."""
    huge = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**20, 2**20])
    one = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    return {
        "outside.onnx": lambda: _onnx(_outside(), "Add"),
        "huge.onnx": lambda: _onnx(huge, "Add"),
        "unknown_operator.onnx": lambda: _onnx(one, "NoSuchOperator"),
        "empty.onnx": lambda: b"",
    }


def _outside() -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../../../../../etc/passwd")
    return tensor


def _onnx(weight: TensorProto, operator: str) -> bytes:
    shape = [1, 3, "h", "w"]
    lr = helper.make_tensor_value_info("lr", TensorProto.FLOAT, shape)
    sr = helper.make_tensor_value_info("sr", TensorProto.FLOAT, shape)
    graph = helper.make_graph([helper.make_node(operator, ["lr", "w"], ["sr"])], "harm", [lr], [sr], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    onnx.helper.set_model_props(model, {ENTRY: "{}"})
    return model.SerializeToString()


def _student(config: dict[str, object]) -> bytes:
    content = {
        "format": FORMAT, "version": VERSION, "architecture": "anchor", "config": config, "scale": config["scale"],
        "value_range": [0.0, 1.0], "weights": {}, "quantization": None, "sparsity": None, "receptive_radius": 1,
        "provenance": {}, "metrics": [],
    }  # fmt: skip
    return _saved(content)


def _saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _zip_bomb() -> bytes:
    """A checkpoint whose storage is 2.5 GiB of zeros, compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"format": FORMAT}, protocol=2))
        with archive.open("a/data/0", "w", force_zip64=True) as member:
            for _ in range(5 * GIBIBYTE // 2**25):
                member.write(bytes(2**24))
    return buffer.getvalue()


def _self_containing() -> bytes:
    content: dict[str, object] = {"format": FORMAT, "version": VERSION}
    content["config"] = content
    return _saved(content)


def _png(width: int, height: int, data: bytes, *more: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), *more, (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def _inflating() -> bytes:
    """A name, and 256 MiB of zeros behind it."""
    return b"a\0\0" + zlib.compress(bytes(2**28), 9)


def _looping_tiff() -> bytes:
    """A directory of one entry that names itself as the next directory."""
    entry = struct.pack("<HHIHH", 256, 3, 1, 8, 0)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + entry + struct.pack("<I", 8)


def _aliases() -> bytes:
    """Nine to the ninth power of a letter."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join(['*' + before] * 9)}]")
    return "\n".join(lines).encode()


def _merged_aliases() -> bytes:
    """Merge keys, each of which doubles the one before."""
    lines = ["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}], k{i}: 1}}" for i in range(1, 40)]
    return "\n".join(lines).encode()
