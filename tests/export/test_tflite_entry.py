"""Metadata in a .tflite, read without LiteRT: the same as LiteRT reads, and a sentence for anything that is not sound."""

import io
import itertools
import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.errors import BadInput
from export.metadata import ENTRY, Metadata, read_tflite, tflite_model
from export.tflite_entry import MOST_BYTES, MOST_ENTRIES, Damaged, read_entry
from tests.conftest import ROOT

ZOO = sorted((ROOT / "zoo").glob("*.tflite"))
TEXT = read_tflite(ZOO[0]).to_json()
EXTREMES = (0, 1, 2**31 - 1, 2**31, 2**32 - 1)
MOST_SECONDS = 2.0


def _tflite(*entries: tuple[str, bytes], repeat: int = 1) -> bytes:
    """A .tflite of nothing but metadata; its entries are listed `repeat` times."""
    model = schema.ModelT()
    model.version, model.buffers, model.metadata = 3, [schema.BufferT()], []
    for name, content in entries:
        entry, buffer = schema.MetadataT(), schema.BufferT()
        entry.name, entry.buffer, buffer.data = name, len(model.buffers), list(content)
        model.buffers.append(buffer)
        model.metadata += repeat * [entry]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


SMALL = _tflite(("min_runtime_version", b"1.5.0"), (ENTRY, TEXT.encode()))


def _read(content: bytes, folder: Path) -> Metadata | None:
    path = folder / "a.tflite"
    path.write_bytes(content)
    start = time.thread_time()  # of this thread's own work, however busy the machine is
    try:
        return read_tflite(path)
    finally:
        assert time.thread_time() - start < MOST_SECONDS


@pytest.mark.parametrize("path", ZOO, ids=lambda path: path.stem)
def test_reads_what_litert_reads(path):
    model = tflite_model(path)
    for entry in model.metadata:
        with path.open("rb") as file:
            assert read_entry(file, entry.name) == bytes(model.buffers[entry.buffer].data)
    with path.open("rb") as file:
        assert read_entry(file, b"pocketsr") is None
    assert read_tflite(path).scale == 4


def test_a_file_of_another_program_has_none(tmp_path):
    assert _read(_tflite(("min_runtime_version", b"1.5.0")), tmp_path) is None
    assert _read(_tflite(), tmp_path) is None


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("mutated")


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), max_size=8),
    st.integers(0, len(SMALL)) | st.just(len(SMALL)),
)
def test_damage_is_a_sentence(folder, changes, length):
    content = bytearray(SMALL)
    for position, value in changes:
        content[position] = value
    said = ""
    try:
        assert isinstance(_read(bytes(content[:length]), folder), Metadata | None)
    except BadInput as error:
        said = str(error)
    assert said.isprintable()


def test_no_number_of_the_structure_leads_astray():
    """Every number of four bytes, and of two, set to what overflows most easily."""
    structure = len(SMALL) - len(TEXT)
    assert structure < 500
    outcomes = set()
    text_at = SMALL.index(TEXT.encode())
    positions = [i for i in range(len(SMALL) - 4) if not text_at <= i < text_at + len(TEXT)]
    for position, value in itertools.product(positions, EXTREMES):
        content = bytearray(SMALL)
        struct.pack_into("<I", content, position, value)
        try:
            outcomes.add(type(read_entry(io.BytesIO(content), ENTRY.encode())))
        except Damaged:
            outcomes.add(Damaged)
    assert outcomes == {bytes, type(None), Damaged}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (SMALL[:8], "found a damaged one"),
        (_tflite((ENTRY, b"{}")), r"found something else in .* \('version'\)"),
        (_tflite((ENTRY, b"\xff\xfe")), "found a damaged one"),
        (_tflite((ENTRY, b"")), "found something else"),
        (_tflite((ENTRY, 100_000 * b"[")), "found something else"),
        (_tflite((ENTRY, MOST_BYTES * b" " + b"1")), f"an entry of {MOST_BYTES + 1} bytes"),
        (_tflite((ENTRY, b"{}"), ("b", b"c"), repeat=MOST_ENTRIES), f"{2 * MOST_ENTRIES} metadata entries"),
    ],
    ids=["header", "no version", "no text", "empty", "nested", "large", "many"],
)
def test_hostile_files_are_refused_at_once(tmp_path, content, sentence):
    with pytest.raises(BadInput, match=sentence):
        _read(content, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"scale": "4"}, {"scale": 0}, {"scale": True}, {"scale": 1.5}, {"precision": "int4"}, {"precision": ["int8"]},
        {"value_range": [0]}, {"value_range": ["0", "1"]}, {"receptive_radius": "wide"}, {"sizes": "some"}, {"sizes": []},
        {"sizes": [[16]]}, {"sizes": [[0, 16]]}, {"sizes": [[16, "x"]]}, {"largest": 0}, {"quality": [1]}, {"quality": {}},
        {"calibration": []}, {"producer": {"torch": 2}}, {"version": None}, {"version": []}, {"input": None},
        {"input": {"dtype": "int4"}}, {"output": {"dtype": "int8", "scale": "1/255"}}, {"extra": 1}, {"a\nb": 1},
        {"architecture": "\ud800"}, {"architecture": "\x1b[2J"}, {"\x1b[2J": 1}, {"architecture": 7}, {"student_sha256": None},
    ],
    ids=ascii,
)  # fmt: skip
def test_metadata_of_other_kinds_is_refused(change: dict[str, Any]):
    with pytest.raises(BadInput, match="expected the metadata that pocketsr writes") as refused:
        Metadata.from_json(json.dumps({**json.loads(TEXT), **change}), "a.tflite")
    assert str(refused.value).isprintable()


def test_metadata_that_is_no_object_is_refused():
    for text in ("[]", "null", "1", "NaN", '"int8"', "", "{"):
        with pytest.raises(BadInput, match="expected the metadata that pocketsr writes"):
            Metadata.from_json(text, "a.tflite")
