"""Published chains of convolutions compute what their authors say."""

import pytest

from benchmarks.chains import load_chain
from compress.data.benchmarks import open_benchmark
from compress.errors import BadInput
from compress.evaluate import evaluate, torch_upscaler


@pytest.mark.parametrize(
    ("name", "psnr"), [("ETDS_M4C32_x4", 31.21), ("ABPN_M4C28_x4", 31.34), ("Plain_M6C32_x4", 31.34)]
)
def test_published_psnr_is_reached(name, psnr, shared_data):
    student = load_chain(shared_data / "weights" / "peers" / f"{name}.pth")
    found = evaluate(torch_upscaler(student.network()), open_benchmark("Set5", 4, shared_data / "eval"))
    assert found["psnr"] == pytest.approx(psnr, abs=0.01)


def test_other_networks_are_refused(shared_data):
    with pytest.raises(BadInput, match="expected weights of a chain"):
        load_chain(shared_data / "weights" / "rlfn_x4.pth")
