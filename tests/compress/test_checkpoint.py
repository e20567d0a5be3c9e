"""student.pt: what is written is what is read, nothing in it is run, and every bad file is refused in one sentence."""

import dataclasses
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from compress.checkpoint import FORMAT, Student, load_student, save_student
from compress.errors import BadInput
from compress.files import sha256
from compress.models import build
from compress.quantization.calibration import calibration_crops
from compress.quantization.ptq import quantize_student

Content = dict[str, Any]


@pytest.fixture(scope="module")
def float_student() -> Student:
    torch.manual_seed(0)
    network = build("anchor", {"scale": 2, "channels": 8, "blocks": 1, "branches": True})
    return Student.of(network, provenance={"recipe": {"seed": 3}}, metrics=[{"set": "Set5", "psnr": 30.25}])


@pytest.fixture(scope="module")
def int8_student(float_student: Student, photographs: Path) -> Student:
    return quantize_student(float_student, calibration_crops(str(photographs), 2, count=16, side=24))


@pytest.fixture
def saved(float_student: Student, tmp_path: Path) -> Path:
    save_student(float_student, tmp_path / "student.pt")
    return tmp_path / "student.pt"


def _lr() -> Tensor:
    return torch.rand(1, 3, 12, 17, generator=torch.Generator().manual_seed(1))


def _refusal(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        load_student(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("expected") or f"{path}: expected" in message
    return message


def test_a_float_student_comes_back_bit_for_bit(float_student, tmp_path):
    digest = save_student(float_student, tmp_path / "s.pt")
    back = load_student(tmp_path / "s.pt")
    assert back.file_hash == digest == sha256(tmp_path / "s.pt")
    assert torch.equal(back.reference()(_lr()), float_student.reference()(_lr()))
    assert (back.architecture, back.config, back.scale) == ("anchor", float_student.config, 2)
    assert (back.provenance, back.metrics) == (float_student.provenance, float_student.metrics)
    assert (back.precision, back.config["branches"]) == ("float32", False)


def test_an_int8_student_comes_back_bit_for_bit(int8_student, tmp_path):
    save_student(int8_student, tmp_path / "s.pt")
    back = load_student(tmp_path / "s.pt")
    assert back.precision == "int8"
    assert torch.equal(back.reference()(_lr()), int8_student.reference()(_lr()))
    assert back.quantization.activations == int8_student.quantization.activations
    assert back.quantization.calibration == int8_student.quantization.calibration


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("edsr", {"scale": 2, "channels": 8, "blocks": 1, "residual_scale": 0.1, "block_channels": 4}),
        ("swinir", {"scale": 2, "depths": [2, 1], "dim": 8, "heads": 2, "window": 4}),
    ],
)
def test_every_kind_of_option_comes_back(architecture, options, tmp_path):
    torch.manual_seed(0)
    student = Student.of(build(architecture, options))
    save_student(student, tmp_path / "s.pt")
    back = load_student(tmp_path / "s.pt")
    assert back.config == student.config
    assert back.network().config == student.network().config
    assert torch.equal(back.reference()(_lr()), student.reference()(_lr()))


def test_the_file_is_plain_content_that_torch_reads_without_code(int8_student, tmp_path):
    save_student(int8_student, tmp_path / "s.pt")
    content = torch.load(tmp_path / "s.pt", weights_only=True)
    assert content["format"] == FORMAT
    assert content["receptive_radius"] == int8_student.deploy().receptive_radius()

    def check(value: object) -> None:
        assert type(value) in (dict, list, tuple, str, int, float, bool, type(None), Tensor), type(value)
        for part in (
            [*value.keys(), *value.values()] if isinstance(value, dict) else value if type(value) is list else ()
        ):
            check(part)

    check(content)


def test_saving_twice_gives_the_same_bytes_and_an_ordinary_file(float_student, tmp_path):
    assert save_student(float_student, tmp_path / "s.pt") == save_student(float_student, tmp_path / "s.pt")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "s.pt").stat().st_mode & 0o777 == 0o666 & ~mask
    assert [p.name for p in tmp_path.iterdir()] == ["s.pt"]


class _FailsToPickle:
    def __reduce__(self) -> Any:
        raise OSError("the disk gave up")


def test_a_save_that_fails_in_the_middle_leaves_the_old_file(float_student, saved):
    before = saved.read_bytes()
    broken = dataclasses.replace(float_student, provenance={"big": torch.zeros(100_000), "bad": _FailsToPickle()})
    with pytest.raises(OSError, match="gave up"):
        save_student(broken, saved)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def _jpeg(path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="JPEG")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "found no file"),
        (lambda path: path.mkdir(), "found a folder"),
        (_jpeg, "found some other kind of file"),
        (lambda path: path.write_text("not a checkpoint\n" * 50), "found some other kind of file"),
        (lambda path: path.write_bytes(b""), "found some other kind of file"),
        (lambda path: path.write_bytes(b"\x80\x02" + bytes(range(200))), "found a"),
        (lambda path: torch.save(torch.nn.Linear(2, 2).state_dict(), path), "found weights of another program"),
        (lambda path: torch.save(torch.zeros(3), path), "found weights of another program"),
        (lambda path: torch.save({"a": 1}, path, _use_new_zipfile_serialization=False), "weights of another program"),
    ],
    ids=["missing", "folder", "jpeg", "text", "empty", "bytes", "foreign", "tensor", "legacy"],
)
def test_other_files_are_refused(make: Callable[[Path], None], says, tmp_path):
    make(tmp_path / "given.pt")
    assert says in _refusal(tmp_path / "given.pt")


def test_a_zip_that_is_no_checkpoint_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "given.pt", "w") as archive:
        archive.writestr("hello.txt", "hello")
    _refusal(tmp_path / "given.pt")


class _Payload:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"echo ran > {self.marker}",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_plain_pickle_is_refused_and_does_not_run(protocol, tmp_path):
    marker = tmp_path / "ran"
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"format": FORMAT, "x": _Payload(marker)}, protocol))
    pickle.loads((tmp_path / "evil.pt").read_bytes())
    assert marker.exists(), "the payload must be one that works"
    marker.unlink()
    _refusal(tmp_path / "evil.pt")
    assert not marker.exists()


@pytest.mark.parametrize("new_format", [True, False])
def test_a_torch_file_with_code_in_it_is_refused_and_does_not_run(new_format, tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "evil.pt"
    torch.save({"format": FORMAT, "x": _Payload(marker)}, path, _use_new_zipfile_serialization=new_format)
    torch.load(path, weights_only=False)
    assert marker.exists(), "the payload must be one that works"
    marker.unlink()
    assert "runs code when opened" in _refusal(path)
    assert not marker.exists()


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_refused(kept, saved):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(kept * len(content))])
    assert "truncated" in _refusal(saved)


def test_one_flipped_byte_in_any_part_is_noticed(saved):
    content = saved.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = [info for info in archive.infolist() if info.file_size]
    assert len(records) > 4
    for record in records:
        start = record.header_offset + 30 + int.from_bytes(content[record.header_offset + 26 :][:2], "little")
        start += int.from_bytes(content[record.header_offset + 28 :][:2], "little")
        damaged = bytearray(content)
        damaged[start + record.file_size // 2] ^= 0x40
        saved.write_bytes(damaged)
        assert "found a damaged one" in _refusal(saved), record.filename


def _edit(path: Path, change: Callable[[Content], object]) -> None:
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.update(version=2), "expected format version 1 of student.pt, found version 2"),
        (lambda c: c.pop("version"), "found version None"),
        (lambda c: c.update(architecture="espcn"), "found 'espcn'"),
        (lambda c: c.pop("weights"), "expected the field 'weights'"),
        (lambda c: c.update(metrics={}), "expected the field 'metrics'"),
        (lambda c: c["weights"].pop("head.weight"), "weights that fit the anchor"),
        (lambda c: c["weights"].update({"head.weight": torch.zeros(8, 3, 5, 5)}), "weights that fit the anchor"),
        (lambda c: c["weights"].update({"head.weight": "text"}), "weights that fit the anchor"),
        (lambda c: c["weights"].update({3: torch.zeros(1)}), "weights that fit the anchor"),
        (lambda c: c["weights"].update(more=torch.zeros(1)), "weights that fit the anchor"),
        (lambda c: c["config"].update(channels=16), "weights that fit the anchor"),
        (lambda c: c["config"].update(width=16), "found 'width'"),
        (lambda c: c["config"].update({3: 16}), "found 3"),
        (lambda c: c.update(scale=4), "expected scale 2"),
        (lambda c: c.update(value_range=[0.0, 255.0]), "the file was edited"),
    ],
)
def test_edited_content_is_refused(change, says, saved):
    _edit(saved, change)
    assert says in _refusal(saved)


def test_a_configuration_that_leaves_the_scale_to_the_default_is_refused(tmp_path):
    save_student(Student.of(build("anchor", {"scale": 4, "channels": 8, "blocks": 0})), tmp_path / "s.pt")
    _edit(tmp_path / "s.pt", lambda content: content["config"].pop("scale"))
    assert "the file was edited" in _refusal(tmp_path / "s.pt")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda q: q["activations"].pop("tail"), "no scale for 'tail'"),
        (lambda q: q["activations"].update(tail=[0.0, 0]), "unusable"),
        (lambda q: q["activations"].update(tail=[float("nan"), 0]), "unusable"),
        (lambda q: q["activations"].update(tail=[0.1, float("inf")]), "unusable"),
        (lambda q: q["activations"].update(tail=[0.1, 200]), "unusable"),
        (lambda q: q["activations"].update(lr=[0.1, 0]), "1/255"),
        (lambda q: q["layers"].pop("body0"), "no fitting integer weights for 'body0'"),
        (lambda q: q["layers"]["body0"].update(weight=torch.zeros(8, 8, 3, 3)), "unusable"),
        (lambda q: q["layers"]["body0"].update(scale=torch.zeros(8)), "unusable"),
        (lambda q: q["layers"]["body0"].pop("bias"), "unusable"),
        (lambda q: q.pop("calibration"), "unusable"),
    ],
)
def test_edited_scales_are_refused(change, says, int8_student, tmp_path):
    save_student(int8_student, tmp_path / "s.pt")
    _edit(tmp_path / "s.pt", lambda content: change(content["quantization"]))
    assert says in _refusal(tmp_path / "s.pt")


def test_a_student_without_a_deploy_form_says_what_to_do(tmp_path):
    student = Student.of(build("rlfn", {"channels": 8, "blocks": 1, "attention_channels": 4}))
    save_student(student, tmp_path / "t.pt")
    back = load_student(tmp_path / "t.pt")
    with pytest.raises(BadInput, match=r"fit the deploy graph \(anchor, srresnet, edsr\), found 'rlfn'"):
        back.deploy()


@pytest.mark.parametrize("kind", ["truncated", "code"])
def test_the_exporter_refuses_a_bad_file_in_one_line(kind, saved, tmp_path, command):
    marker = tmp_path / "ran"
    if kind == "truncated":
        saved.write_bytes(saved.read_bytes()[:2000])
    else:
        torch.save({"format": FORMAT, "x": _Payload(marker)}, saved)
    done = command("export.tflite", saved)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("error: expected")
    assert not marker.exists()
    assert not list(saved.parent.glob("*.tflite"))
