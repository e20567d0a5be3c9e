"""Devices, as real daemons of Debian's adb in a network of their own; skipped where they cannot be had."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from compress.errors import BadInput
from runtime.device import adb
from runtime.device.build import Bundle, bundle_of
from runtime.device.toolchain import ABIS, ROOT
from runtime.engines import open_model
from runtime.engines.adb import AdbEngine
from tests.runtime.adbd import Device, Network, network

ZOO = ROOT / "zoo"
FILES = {"int8": ZOO / "anchor_x4_int8.tflite", "float32": ZOO / "anchor_x4_float32.tflite"}
STUDENT, SCALE = ZOO / "anchor_x4_int8.pt", 4
PORT = 7001  # of the device that most tests use


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """The runner for this machine."""
    abi = next((abi.name for abi in ABIS.values() if abi.machine == os.uname().machine), "none")
    try:
        return bundle_of(abi)
    except BadInput as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def net(tmp_path_factory, bundle) -> Iterator[Network]:
    try:
        context = network(tmp_path_factory.mktemp("network"))
        opened = context.__enter__()
    except BadInput as error:
        pytest.skip(str(error))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{opened.bin}{os.pathsep}{os.environ['PATH']}")
        patch.setattr(adb, "SETTLING", 0.5)  # these devices need no time to say who they are
        yield opened
    context.__exit__(None, None, None)


@pytest.fixture(scope="module")
def phone(net) -> Device:
    """The device that most tests use."""
    return net.device(PORT)


@pytest.fixture
def plug(net) -> Iterator[Callable[..., Device]]:
    """Plugs in more devices, for one test."""
    plugged: list[Device] = []

    def add(port: int, **options: Any) -> Device:
        plugged.append(net.device(port, **options))
        return plugged[-1]

    yield add
    for one in plugged:
        one.forget()


@pytest.fixture
def engine(phone) -> Iterator[AdbEngine]:
    with opened(phone) as one:
        yield one


def opened(phone: Device, precision: str = "int8") -> AdbEngine:
    one = open_model(FILES[precision], engine=f"adb:{phone.serial}")
    assert isinstance(one, AdbEngine)
    return one


def stored(phone: Device) -> list[str]:
    return sorted(path.name for path in phone.storage.iterdir())
