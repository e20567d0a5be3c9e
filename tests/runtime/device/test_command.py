"""`python -m runtime.device`: golden vectors on every device."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from compress.errors import BadInput
from compress.files import sha256
from runtime.device.__main__ import main
from runtime.engines import open_model
from tests.runtime.device.conftest import FILES, STUDENT, stored

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="namespaces and the runner's build are Linux's")


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A folder like an export's: a file with its golden vectors."""
    folder = tmp_path_factory.mktemp("export")
    shutil.copyfile(FILES["int8"], folder / "student_int8.tflite")
    lr = np.random.default_rng(3).integers(0, 256, (48, 48, 3), np.uint8)
    np.savez(folder / "golden.npz", lr=lr, sr_int8=open_model(STUDENT).upscale(lr).image)
    return folder


def test_command_runs_the_golden_vector_on_all_devices(exported, plug, phone, command, capsys, tmp_path):
    second = plug(7008)
    file, report = exported / "student_int8.tflite", tmp_path / "report.json"
    run = command("runtime.device", file, "--runs", "4", "--json", report)
    assert run.returncode == 0, run.stderr
    assert "48x48 pixels" in run.stdout
    figures = json.loads(report.read_text())
    assert figures["passed"]
    assert {row["serial"] for row in figures["devices"]} == {phone.serial, second.serial}
    for row in figures["devices"]:
        assert f"{row['serial']}: PASS" in run.stdout
        assert row["agreement"]["max_lsb"] <= 1
        assert len(row["run_ms"]) == 4
        assert min(row["run_ms"]) <= row["median_ms"] <= row["p90_ms"] <= max(row["run_ms"])
        assert row["peak_bytes"] > 0
    second.unplug()
    assert main(file, runs=1) == 1  # one of two is not ready
    printed = capsys.readouterr().out
    assert f"{second.serial}: FAIL  expected the device {second.serial} to be ready, found it offline" in printed
    assert f"{phone.serial}: PASS" in printed
    assert stored(phone) == []


def test_command_fails_for_wrong_values_and_refuses_other_folders(exported, phone, command, capsys, tmp_path):
    vectors = dict(np.load(exported / "golden.npz"))
    wrong = vectors["sr_int8"].copy()
    wrong[10:12] += 3  # 2 of 96 rows
    np.savez(tmp_path / "golden.npz", lr=vectors["lr"], sr_int8=wrong)
    file = exported / "student_int8.tflite"
    assert main(file, golden=tmp_path, serial=[phone.serial]) == 1
    assert "FAIL  largest difference" in capsys.readouterr().out
    np.savez(tmp_path / "golden.npz", lr=vectors["lr"], sr_float32=np.zeros((96, 96, 3), np.float32))
    with pytest.raises(BadInput, match="expected golden vectors of int8"):
        main(file, golden=tmp_path)
    with pytest.raises(BadInput, match="expected golden vectors, found none"):
        main(file, golden=tmp_path / "nothing")
    (tmp_path / "golden.npz").write_bytes((exported / "golden.npz").read_bytes()[:-100])
    with pytest.raises(BadInput, match="expected golden vectors, found a damaged file"):
        main(file, golden=tmp_path)
    with pytest.raises(BadInput, match="expected a device nobody"):
        main(file, serial=["nobody"])
    with pytest.raises(BadInput, match="expected a folder that takes new files"):
        main(file, serial=["nobody"], json=Path("/proc/nothing/report.json"))
    with pytest.raises(BadInput, match="expected at least 1 run"):
        main(file, runs=0)
    run = command("runtime.device", tmp_path / "golden.npz")
    assert run.returncode == 2
    assert "expected a .tflite file" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_stale_file_is_named(exported, tmp_path):
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    file, manifest = tmp_path / "student_int8.tflite", tmp_path / "manifest.json"
    rows = [{"file": file.name, "sha256": "0" * 64}]
    manifest.write_text(json.dumps({"files": rows, "golden": {"sha256": sha256(tmp_path / "golden.npz")}}))
    with pytest.raises(BadInput, match=r"expected the student_int8.tflite that .* lists, found another"):
        main(file)
    rows[0]["sha256"] = sha256(file)
    manifest.write_text(json.dumps({"files": rows, "golden": {"sha256": "0" * 64}}))
    with pytest.raises(BadInput, match=r"expected the golden.npz that .* lists, found another"):
        main(file)
    manifest.write_text("[]")
    with pytest.raises(BadInput, match="expected the manifest of an export"):
        main(file)
