"""Devices over adb, end to end: Debian's adb and adbd, the runner built from C, real files; skipped where they cannot be had.

No phone was at hand. A daemon on Linux gives real protocol, files, exit codes, disconnections and full disks, but no dialog for
authorization: what adb prints then is only parsed here.
"""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from compress.errors import BadInput
from runtime.device.adb import Gone, choose, devices, parse_devices
from runtime.device.build import bundle_of
from runtime.device.toolchain import ROOT
from runtime.engines import open_model
from tests.runtime.adbd import until
from tests.runtime.device.conftest import FILES, SCALE, opened, stored

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="namespaces and the runner's build are Linux's")
PRINTED = """\
* daemon not running; starting now at tcp:5037
* daemon started successfully
List of devices attached
28021FDH2000AB         device usb:1-4 product:panther model:Pixel_7 device:panther transport_id:3
R58M12ABCDE            unauthorized usb:1-1 transport_id:4
emulator-5554          offline transport_id:2
0123456789ABCDEF       no permissions (missing udev rules? user is in the plugdev group); see [http://developer.android.com/tools/device.html] usb:1-2 transport_id:5
adb-28021FDH2000AB-hNK2gq (2)._adb-tls-connect._tcp device product:panther model:Pixel_7 device:panther transport_id:6
192.168.1.7:5555       connecting
"""  # noqa: E501


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_device_computes_what_this_machine_computes(phone, photograph, precision):
    here = open_model(FILES[precision])
    with opened(phone, precision) as there:
        for image in (photograph, photograph[::2, 5:], np.full((1, 1, 3), 200, np.uint8)):
            result = there.upscale(image)
            assert np.array_equal(result.raw, here.upscale(image).raw)  # one processor, one library
            assert min(result.timing.prepare, result.timing.run) > 0
            assert result.timing.read >= 0
        description = there.describe()
    assert description.native
    assert description.engine == f"adb:{phone.serial}"
    assert description.version.startswith("ai-edge-litert ")
    assert description.metadata == here.metadata


def test_androids_own_shell_and_tools_will_do(plug, photograph):
    phone = plug(7009, android=True)
    said = phone.network.adb("-s", phone.serial, "shell", "echo $KSH_VERSION; ls --help; command -v awk tr")
    assert "MIRBSD KSH" in said
    assert "oybox" in said
    assert "awk" not in said
    (phone.storage / "pocketsr-999999-0123456789abcdef" / "x86_64").mkdir(parents=True)
    with opened(phone) as one, opened(phone, "float32") as two:
        assert len(stored(phone)) == 1
        assert np.array_equal(one.upscale(photograph).raw, open_model(FILES["int8"]).upscale(photograph).raw)
        assert two.peak_memory(32, 32) > 0
    assert stored(phone) == []


def test_memory_is_the_devices(engine):
    small, large = engine.peak_memory(64, 64), engine.peak_memory(256, 256)
    assert 0 < small < large < 2**28
    assert large - small > 3 * SCALE**2 * (256**2 - 64**2)  # the output alone


def test_several_runs_are_one_process(engine, photograph):
    _, report = engine.measure(photograph, runs=5, warmup=2)
    assert len(report.run_ms) == 5
    assert min(report.run_ms) > 0
    assert report.open_ms > 0


def test_engines_share_what_is_on_the_device(phone, engine):
    folder = phone.storage / stored(phone)[0]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    with opened(phone), opened(phone, "float32") as other:
        after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
        assert len(stored(phone)) == 1
        assert before.items() <= after.items()
        assert len(after) == len(before) + 1
        assert other.upscale(np.zeros((4, 4, 3), np.uint8)).image.shape == (4 * SCALE, 4 * SCALE, 3)
    engine.upscale(np.zeros((4, 4, 3), np.uint8))  # the first one's folder is still there
    assert not list(folder.glob("*put"))


def test_a_closed_engine_leaves_nothing_and_says_so(phone, photograph):
    one = opened(phone)
    assert len(stored(phone)) == 1
    one.close()
    one.close()
    assert stored(phone) == []
    with pytest.raises(BadInput, match="expected an open engine"):
        one.upscale(photograph)


PROGRAM = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job of a shell ignores
from runtime.engines import open_model
engine = open_model({path!r}, engine="adb:{serial}")
print("open", flush=True)
{then}
"""


@pytest.mark.parametrize(
    ("then", "number"),
    [("", None), ("raise ValueError", None), ("time.sleep(60)", signal.SIGINT), ("time.sleep(60)", signal.SIGKILL)],
    ids=["exit", "exception", "Ctrl-C", "kill"],
)
def test_nothing_is_left_however_the_process_ends(phone, then, number):
    program = PROGRAM.format(path=str(FILES["int8"]), serial=phone.serial, then=then)
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process:
        assert process.stdout
        assert process.stdout.readline() == "open\n"
        if number:
            assert len(stored(phone)) == 1
            process.send_signal(number)
        process.wait(20)
    until(lambda: stored(phone) == [])


SLOW_PUSH = """#!/bin/sh
case " $* " in *" push "*)
  touch {folder}/begun
  while [ ! -e {folder}/go ]; do sleep 0.05; done
  {adb} "$@"
  touch {folder}/ended
  exit ;;
esac
exec {adb} "$@"
"""


def test_nothing_is_left_of_what_arrives_after_the_process_was_killed(net, phone, tmp_path):
    """adb goes on copying when who started it is gone, and the device makes folders for what it gets."""
    slow = tmp_path / "bin" / "adb"
    slow.parent.mkdir()
    slow.write_text(SLOW_PUSH.format(folder=tmp_path, adb=net.bin / "adb"))
    slow.chmod(0o755)
    program = PROGRAM.format(path=str(FILES["int8"]), serial=phone.serial, then="")
    path = f"{slow.parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=os.environ | {"PATH": path})
    try:
        until((tmp_path / "begun").exists)
    finally:
        process.kill()
        process.wait()
    until(lambda: stored(phone) == [])
    (tmp_path / "go").touch()
    until((tmp_path / "ended").exists)
    until(lambda: stored(phone) == [])


def test_folders_of_a_device_that_was_switched_off_are_removed_and_others_kept(phone):
    (phone.storage / "pocketsr-999999-0123456789abcdef" / "x86_64").mkdir(parents=True)
    (phone.storage / f"pocketsr-{os.getpid()}-0123456789abcdef").mkdir()  # a number that another process has now
    (phone.storage / "pocketsr-notes").mkdir()  # not ours
    program = PROGRAM.format(path=str(FILES["int8"]), serial=phone.serial, then="time.sleep(60)")
    other = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout
        assert other.stdout.readline() == "open\n"
        (alive,) = set(stored(phone)) - {"pocketsr-notes"}
        with opened(phone):
            assert len(stored(phone)) == 3
            assert alive in stored(phone)
        assert stored(phone) == sorted(["pocketsr-notes", alive])
    finally:
        other.kill()
        other.communicate()
    until(lambda: stored(phone) == ["pocketsr-notes"])
    (phone.storage / "pocketsr-notes").rmdir()


def test_a_device_that_is_unplugged_half_way(plug, photograph):
    phone = plug(7002)
    one, errors = opened(phone), []

    def run() -> None:
        try:
            one.measure(np.tile(photograph, (2, 2, 1)), runs=10_000, warmup=0)
        except BadInput as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    folder = phone.storage / stored(phone)[0]
    until((folder / "running").exists)
    until(lambda: (folder / "running").read_text().strip() != "")
    phone.unplug()
    thread.join(20)
    (error,) = errors
    assert isinstance(error, Gone)
    assert f"expected the device {phone.serial} to stay connected while it runs an image of" in str(error)
    until(lambda: stored(phone) == [])  # its own shell saw the end
    with pytest.raises(BadInput, match="device"):
        one.upscale(photograph)
    phone.plug()
    with opened(phone) as again:  # while the first one is still open
        again.upscale(photograph)
    one.close()
    assert stored(phone) == []


def test_a_device_without_room(plug):
    small = plug(7003, size="4m")
    with pytest.raises(
        BadInput, match=r"expected \d+\.\d MB of free space for x86_64|arm64-v8a on the device .*: free some"
    ):
        opened(small)
    assert small.left() == []
    tight = plug(7004, size="17m")
    with opened(tight) as one:
        with pytest.raises(BadInput, match="expected room for the output on the device"):
            one.upscale(np.zeros((300, 300, 3), np.uint8))
        one.upscale(np.zeros((8, 8, 3), np.uint8))  # and works on with less
    assert tight.left() == []


def test_a_device_with_another_processor(plug):
    old = plug(7005, programs={"uname": "[ $1 = -m ] && echo armv7l || exec /usr/bin/uname $@\n"})
    with pytest.raises(BadInput, match="expected a device with a processor of arm64-v8a or x86_64, found armv7l on"):
        opened(old)
    assert stored(old) == []
    old.forget()
    other = "arm64-v8a" if os.uname().machine == "x86_64" else "x86_64"
    try:
        bundle_of(other)
    except BadInput as error:
        pytest.skip(str(error))
    properties = f"case $1 in ro.product.cpu.abi) echo {other};; ro.product.model) echo Test;; esac\n"
    liar = plug(7006, programs={"getprop": properties})
    with pytest.raises(BadInput, match=r"to run programs in .*, found that it does not"):
        opened(liar)
    assert stored(liar) == []


def test_which_device(net, plug, phone, photograph):
    properties = (
        "case $1 in *abi) uname -m;; *model) echo 'Pixel 7';; *manufacturer) echo Google;; *release) echo 14;; esac\n"
    )
    second = plug(7007, programs={"getprop": properties})
    assert {one.serial for one in devices() if one.state == "device"} == {phone.serial, second.serial}
    with pytest.raises(BadInput, match=rf"expected one device, found .*{second.serial}.*: choose one as adb:SERIAL"):
        open_model(FILES["int8"], engine="adb")
    with pytest.raises(BadInput, match=r"expected a device 127\.0\.0\.1:1, found"):
        open_model(FILES["int8"], engine="adb:127.0.0.1:1")
    with opened(phone) as one, opened(second) as two:
        assert np.array_equal(one.upscale(photograph).raw, two.upscale(photograph).raw)
        assert "Google Pixel 7, Android 14" in two.describe().version
    second.unplug()
    until(lambda: net.adb("-s", second.serial, "get-state").strip() != "device")
    with pytest.raises(BadInput, match=f"expected the device {second.serial} to be ready, found it offline: unplug it"):
        choose(second.serial)
    second.forget()
    assert choose() == phone.serial


def test_no_device_and_no_adb(net, monkeypatch, tmp_path):
    net.start_server(15038)
    with monkeypatch.context() as patch:
        patch.setenv("TEST_ADB_PORT", "15038")
        with pytest.raises(BadInput, match="expected a device, found none: connect one"):
            open_model(FILES["int8"], engine="adb")
        patch.setenv("ADB_SERVER_SOCKET", "tcp:192.0.2.1:5037")  # where no server can be started
        with pytest.raises(BadInput, match="expected adb's server to run, found that it does not start"):
            open_model(FILES["int8"], engine="adb")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="expected adb, which talks to phones, found it missing: install"):
        open_model(FILES["int8"], engine="adb")


def test_reads_what_adb_prints():
    found = {one.serial: one.state for one in parse_devices(PRINTED)}
    assert found == {
        "28021FDH2000AB": "device",
        "R58M12ABCDE": "unauthorized",
        "emulator-5554": "offline",
        "0123456789ABCDEF": "no permissions",
        "adb-28021FDH2000AB-hNK2gq (2)._adb-tls-connect._tcp": "device",
        "192.168.1.7:5555": "connecting",
    }
    (unauthorized,) = (one for one in parse_devices(PRINTED) if one.state == "unauthorized")
    assert "found it unauthorized: unlock it, and allow USB debugging" in unauthorized.complaint
