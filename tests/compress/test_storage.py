"""Storage: every size is the length of real bytes, and the bytes decode to the same bits."""

import dataclasses
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.checkpoint import Student, save_student
from compress.cli import command_line
from compress.models import build
from compress.pruning.magnitude import MagnitudeConfig, prune_student
from compress.pruning.storage import SCHEMES, decode, describe, encode, main, storage_sizes, stored_tensors
from compress.quantization.calibration import calibration_crops
from compress.quantization.ptq import quantize_student

SRRESNET = {"scale": 2, "channels": 16, "blocks": 1, "head_kernel": 3, "tail_kernel": 3}


def _student(sparsity: float = 0.5, pattern: str = "unstructured", skip: str = "first_last") -> Student:
    torch.manual_seed(2)
    student = Student.of(build("srresnet", SRRESNET))
    if not sparsity:
        return student
    return prune_student(student, MagnitudeConfig(sparsity=sparsity, pattern=pattern, scope="layer", skip=skip))[0]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def int8_student(photographs: Path) -> Student:
    return quantize_student(_student(), calibration_crops(str(photographs), 2, count=16, side=16))


def _bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(
        (value.dtype, value.shape, _bits(value)) == (other[name].dtype, other[name].shape, _bits(other[name]))
        for name, value in one.items()
    )


@settings(deadline=None, max_examples=60)
@given(
    shape=st.lists(st.integers(0, 40), max_size=2).map(tuple),
    density=st.sampled_from([0.0, 0.001, 0.02, 0.1, 0.5, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.int8, torch.int32, torch.int64]),
    seed=st.integers(0, 1000),
)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_gives_back_every_bit(scheme, shape, density, dtype, seed):
    draw = torch.Generator().manual_seed(seed)
    values = torch.randint(1, 100, (*shape, 3), generator=draw).to(dtype)
    values[torch.rand(values.shape, generator=draw) > density] = 0
    array = values.numpy()
    write, read = SCHEMES[scheme]
    assert read(write(array), array.dtype, array.size).tobytes() == array.tobytes()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_unusual_floats_and_long_runs_of_zeros_survive(scheme):
    array = np.zeros(2000, np.float32)
    array[[0, 255, 256, 512, 1024, 1999]] = [-0.0, np.nan, np.inf, 1e-45, -1.5, 7.0]  # gaps of 254, 0, 255, 511, 974
    write, read = SCHEMES[scheme]
    assert read(write(array), array.dtype, 2000).tobytes() == array.tobytes()


def test_the_bytes_are_those_that_the_schemes_describe():
    array = np.zeros(300, np.float32)
    array[[1, 2, 299]] = [1.5, -2.0, 3.0]
    values = struct.pack("<3f", 1.5, -2.0, 3.0)
    assert SCHEMES["gaps"][0](array) == struct.pack("<I", 3) + bytes([1, 0, 255, 296 - 255]) + values
    bits = bytearray(38)
    bits[0], bits[37] = 0b01100000, 0b00010000  # 300 = 37 * 8 + 4
    assert SCHEMES["bitmask"][0](array) == bytes(bits) + values
    assert SCHEMES["dense"][0](array) == array.tobytes()


@pytest.mark.parametrize("sparse", [False, True])
def test_a_students_weights_come_back_bit_for_bit(sparse, int8_student):
    for tensors in (*stored_tensors(int8_student).values(), *stored_tensors(_student(0.95)).values()):
        assert _same(decode(encode(tensors, sparse=sparse)), tensors)
    weights = decode(encode(_student().weights, sparse=sparse))
    lr = torch.rand(1, 3, 8, 8)
    assert torch.equal(dataclasses.replace(_student(), weights=weights).network()(lr), _student().network()(lr))


def test_weights_in_another_memory_order_are_stored_in_row_major_order():
    weight = torch.randn(4, 4, 3, 3)
    moved = weight.to(memory_format=torch.channels_last)
    assert moved.stride() != weight.stride()
    assert encode({"w": moved}, sparse=True) == encode({"w": weight}, sparse=True)


def test_an_int8_file_holds_the_integers_the_scales_and_the_slopes(int8_student):
    found = decode(encode(stored_tensors(int8_student)["int8"], sparse=True))
    quantization = int8_student.quantization
    for name, layer in quantization.layers.items():
        for part in ("weight", "scale", "bias"):
            assert torch.equal(found.pop(f"{name}.{part}"), getattr(layer, part))
    scales, zero_points = found.pop("scales"), found.pop("zero_points")
    for activation, scale, zero_point in zip(quantization.activations.values(), scales, zero_points, strict=True):
        assert (scale, zero_point) == (np.float32(activation.scale), activation.zero_point)
    prelus = {name for name, module in int8_student.network().named_modules() if isinstance(module, nn.PReLU)}
    assert len(found) == len(prelus) == 3
    assert all(name.endswith("_prelu.slope") and value == 0.25 for name, value in found.items())


@pytest.mark.parametrize(("sparsity", "scheme"), [(0.0, "dense"), (0.02, "dense"), (0.5, "bitmask"), (0.95, "gaps")])
def test_each_layer_takes_its_shortest_scheme(sparsity, scheme):
    weight, zeros = torch.ones(32, 32, 3, 3), round(sparsity * 9216)
    weight.view(-1)[torch.randperm(9216, generator=torch.Generator().manual_seed(0))[:zeros]] = 0
    sizes = {
        "dense": 4 * 9216,
        "bitmask": 9216 // 8 + 4 * (9216 - zeros),
        "gaps": 4 + 5 * (9216 - zeros),
    }
    header_and_data = encode({"w": weight}, sparse=True)
    length = int.from_bytes(header_and_data[:8], "little")
    assert json.loads(header_and_data[8 : 8 + length]) == [["w", "<f4", [32, 32, 3, 3], scheme, sizes[scheme]]]
    assert len(header_and_data) == 8 + length + sizes[scheme]
    assert sizes[scheme] == min(sizes.values())


def test_the_sizes_are_the_lengths_of_the_files(int8_student):
    for student in (int8_student, _student(0.9)):
        for sizes in storage_sizes(student):
            tensors = stored_tensors(student)[sizes.precision]
            dense, sparse = encode(tensors, sparse=False), encode(tensors, sparse=True)
            assert (sizes.dense, sizes.sparse) == (len(dense), len(sparse))
            assert sizes.compressed == len(zlib.compress(dense, 9))
            assert sizes.sparse_compressed == len(zlib.compress(sparse, 9))
            flat = torch.cat([tensor.double().flatten() for tensor in tensors.values()])
            assert (sizes.values, sizes.zeros) == (len(flat), int((flat == 0).sum()))
            assert sum(sizes.schemes.values()) == len(tensors)


def test_zeros_save_bytes_only_in_sparse_and_compressed_files():
    plain, half, most = (storage_sizes(_student(sparsity))[0] for sparsity in (0.0, 0.5, 0.9))
    assert plain.dense == half.dense == most.dense
    assert plain.values * 4 < plain.dense < plain.values * 4 + 5000  # the header and the norms' step counters
    assert plain.sparse > 1.6 * half.sparse > 1.6 * 2 * most.sparse
    assert plain.compressed > 1.4 * half.compressed > 1.4 * 2 * most.compressed
    structured = storage_sizes(_student(0.5, "2:4"))[0]
    assert abs(structured.sparse - half.sparse) < 20, "four bits for four weights, whatever the pattern"


def test_the_command_prints_a_table_and_writes_what_describe_says(int8_student, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    save_student(int8_student, tmp_path / "s.pt")
    with pytest.raises(SystemExit) as caught:
        command_line(main, [str(tmp_path / "s.pt"), "--out", str(tmp_path / "s.json")])
    printed, errors = capsys.readouterr()
    assert (caught.value.code, errors) == (0, "")
    found = json.loads((tmp_path / "s.json").read_text())
    assert found == describe(int8_student)
    assert (found["pattern"], found["sparsity"]) == ("unstructured", pytest.approx(0.5, abs=1e-3))
    assert [sizes["precision"] for sizes in found["sizes"]] == ["float32", "int8"]
    for sizes in found["sizes"]:
        row = next(line for line in printed.splitlines() if sizes["precision"] in line)
        assert all(f"{sizes[name]:,}" in row for name in ("values", "dense", "sparse", "compressed"))
    assert "s.pt in bytes; unstructured, 50.00% zeros" in printed
    assert describe(_student(0.0))["pattern"] is None
