"""What the benchmark of exports gives to other converters and how it judges their files: without installing any."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from benchmarks.any_tflite import AnyTflite, in_tiles, noise, peak_memory
from benchmarks.peers import Task
from benchmarks.peers.tensorflow_converter import anchor_arrays, write_int8
from compress.checkpoint import Student, save_student
from compress.errors import BadInput
from compress.models import build
from compress.quantization.calibration import calibration_crops
from compress.quantization.ptq import quantize_student
from export.tflite import export_tflite
from runtime.engines.litert import LitertEngine


@pytest.fixture
def task(tmp_path):
    torch.manual_seed(0)
    anchor = build("anchor", {"scale": 3, "channels": 8, "blocks": 1}).eval()
    return Task(Student.of(anchor), calibration_crops("skimage", 3, count=16, side=16), tmp_path)


def test_tensorflow_gets_the_same_network(task):
    arrays = anchor_arrays(task)
    lr = task.crops.crops[:2]
    x = lr
    for i in range(3):
        x = functional.conv2d(
            x, torch.tensor(arrays[f"weight{i}"]).permute(3, 2, 0, 1), torch.tensor(arrays[f"bias{i}"]), padding=1
        )
        x = x.relu() if i < 2 else x
    x = (x + torch.cat([lr] * 9, dim=1)).detach().numpy()
    # TensorFlow's depth_to_space: channel (row * 3 + column) * 3 + colour
    sr = x.reshape(2, 3, 3, 3, 16, 16).transpose(0, 3, 4, 1, 5, 2).reshape(2, 3, 48, 48)
    with torch.no_grad():
        np.testing.assert_allclose(sr.clip(0, 1), task.student.network()(lr).numpy(), atol=1e-6)


def test_tensorflow_refuses_another_network(task):
    other = Task(Student.of(build("srresnet", {"blocks": 1, "channels": 8})), task.crops, task.folder)
    with pytest.raises(BadInput, match="expected an anchor network"):
        write_int8(other)


def test_tiles_keep_every_pixel():
    lr = np.random.default_rng(0).integers(0, 256, (37, 50, 3), np.uint8)
    seen = []

    def nearest(tile):
        seen.append(tile.shape)
        return tile.repeat(2, axis=0).repeat(2, axis=1)

    np.testing.assert_array_equal(in_tiles(nearest, 16)(lr), nearest(lr))
    assert set(seen[:-1]) == {(16, 16, 3)}


def test_reads_a_file_as_our_engine_does(task):
    path, lr = task.folder / "int8.tflite", noise(32)
    int8 = quantize_student(task.student, task.crops, plain=True)
    export_tflite(dataclasses.replace(int8, file_hash=save_student(int8, task.folder / "int8.pt")), path, "int8")
    np.testing.assert_array_equal(AnyTflite(path, 32).upscale(lr), LitertEngine(path).upscale(lr).image)
    assert 0 < peak_memory(path, 32) < peak_memory(path, 512)
