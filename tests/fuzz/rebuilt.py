"""Damage that parses: what is inside is changed, and the structure and checksums around it are made right again."""

import io
import random
import struct
import zipfile
import zlib
from typing import Any

import onnx
import torch
from google.protobuf.message import DecodeError

from export.flatbuffer import parse, serialize
from tests.fuzz.mutations import EXTREMES, damaged

PNG_SIGNATURE = 8
HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 10**12, 1e308, float("nan"), float("inf"), "", "x", "../x", [], {}, [[]], {"a": None},
    torch.zeros(0), torch.zeros(3), torch.full((2, 2), float("nan")), torch.zeros(1, 1, 1, 1, dtype=torch.int8),
    torch.zeros(2, dtype=torch.complex64),
)  # fmt: skip


def rezipped(data: bytes, chance: random.Random) -> bytes:
    """A zip archive with one member damaged and all checksums right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    victim = chance.choice([i for i, (_, content) in enumerate(members) if content])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for i, (name, content) in enumerate(members):
            archive.writestr(name, damaged(content, chance) if i == victim else content)
    return buffer.getvalue()


def refilled(data: bytes, chance: random.Random) -> bytes:
    """A checkpoint that loads, with one value of its dictionary replaced, removed, or put elsewhere."""
    content = torch.load(io.BytesIO(data), weights_only=True)
    at = content
    while True:
        key = chance.choice(list(at) if isinstance(at, dict) else range(len(at)))
        inner = at[key]
        if not isinstance(inner, (dict, list)) or not inner or chance.random() < 0.25:
            break
        at = inner
    if isinstance(at, dict) and chance.random() < 0.2:
        del at[key]
    else:
        at[key] = chance.choice(HOSTILE)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def rechecked(data: bytes, chance: random.Random) -> bytes:
    """A PNG with one chunk damaged and all checksums right."""
    chunks, at = [], PNG_SIGNATURE
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    victim = chance.choice([i for i, (_, content) in enumerate(chunks) if content])
    rebuilt = data[:PNG_SIGNATURE]
    for i, (kind, content) in enumerate(chunks):
        content = damaged(content, chance) if i == victim else content
        rebuilt += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return rebuilt


def reassembled(data: bytes, chance: random.Random) -> bytes:
    """A .tflite with one number of its graph replaced."""
    model = parse(data)
    graph = model.subgraphs[0]
    owner = chance.choice((graph, chance.choice(graph.tensors), *[chance.choice(graph.operators) for _ in range(3)]))
    owner = chance.choice((owner, getattr(owner, "builtinOptions", None) or owner))
    name = chance.choice([name for name, value in vars(owner).items() if _number(value) or _numbers(value)])
    value = getattr(owner, name)
    if _number(value):
        setattr(owner, name, type(value)(_extreme(chance)))
    else:
        numbers = [int(one) for one in value]
        numbers[chance.randrange(len(numbers))] = _extreme(chance)
        setattr(owner, name, numbers)
    try:
        return serialize(model)
    except Exception:  # a number that does not fit its field
        return damaged(data, chance)


def rewritten(data: bytes, chance: random.Random) -> bytes:
    """An .onnx with an attribute, a shape, or a name of its graph replaced."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        return damaged(data, chance)
    graph = model.graph
    node, tensor = chance.choice(graph.node), chance.choice(graph.initializer)
    match chance.randrange(5):
        case 0 if tensor.dims:
            tensor.dims[chance.randrange(len(tensor.dims))] = _extreme(chance)
        case 1 if node.attribute and node.attribute[0].ints:
            attribute = chance.choice([one for one in node.attribute if one.ints])
            attribute.ints[chance.randrange(len(attribute.ints))] = _extreme(chance)
        case 2:
            node.input[chance.randrange(len(node.input))] = chance.choice(graph.node).output[0]
        case 3:
            tensor.data_type = chance.randrange(24)
        case _:
            node.op_type = chance.choice(graph.node).op_type
    return model.SerializeToString()


def _extreme(chance: random.Random) -> int:
    value = chance.choice((*EXTREMES, 2, 3, 7, 100, 1000))
    return max(-(2**31), min(2**31 - 1, value))


def _number(value: object) -> bool:
    return type(value) in (int, float)


def _numbers(value: Any) -> bool:
    return value is not None and not isinstance(value, (str, bytes)) and hasattr(value, "__len__") and len(value) > 0 and all(
        hasattr(one, "__index__") for one in value
    )  # fmt: skip
