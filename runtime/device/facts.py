"""What a device says of itself: its name, its processor, and where it takes files."""

from dataclasses import dataclass

from compress.errors import BadInput
from runtime.device.adb import Device
from runtime.device.toolchain import ABIS

FOLDERS = (
    "/data/local/tmp",
    "/tmp",
    "/var/tmp",
)  # the first is Android's for what adb brings, the others are of any Linux
ASK = f"""
for key in product.cpu.abi product.manufacturer product.model build.version.release; do
  echo "$key=$(getprop ro.$key 2>/dev/null)"
done
echo "machine=$(uname -m)"
echo "system=$(uname -sr)"
echo "node=$(uname -n)"
for folder in {" ".join(FOLDERS)}; do
  if [ -d "$folder" ] && [ -w "$folder" ]; then echo "folder=$folder"; break; fi
done
"""


@dataclass(frozen=True)
class Facts:
    """What a device says of itself.

    Attributes:
        serial: of adb.
        name: maker, model and version of Android, or what a plain Linux says.
        abi: of its processor, as Android names it.
        folder: that takes files.
    """

    serial: str
    name: str
    abi: str
    folder: str


def read_facts(device: Device) -> Facts:
    """Asks a device.

    Raises:
        BadInput: a processor that there is no runner for, or nowhere to write.
    """
    told = device.shell(ASK, doing="it says what it is").out
    facts = {
        key: value.strip() for key, _, value in (line.partition("=") for line in told.splitlines()) if value.strip()
    }
    abi = _abi(facts, device.serial)
    if "folder" not in facts:
        raise BadInput(
            f"expected a folder on the device {device.serial} that takes files, found none of {', '.join(FOLDERS)}: make one "
            "writable for adb's user."
        )
    return Facts(device.serial, _name(facts), abi, facts["folder"])


def _abi(facts: dict[str, str], serial: str) -> str:
    told = facts.get("product.cpu.abi") or facts.get("machine", "")
    for abi in ABIS.values():
        if told in (abi.name, abi.machine):
            return abi.name
    raise BadInput(
        f"expected a device with a processor of {' or '.join(ABIS)}, found {told or 'no word of it'} on {serial}: use a "
        "64-bit device."
    )


def _name(facts: dict[str, str]) -> str:
    """'Google Pixel 7, Android 14', or 'Linux 6.1 (its name)'."""
    model = facts.get("product.model")
    if not model:
        return f"{facts.get('system', 'an unknown system')} ({facts.get('node', 'no name')})"
    maker = facts.get("product.manufacturer", "")
    full = model if model.lower().startswith(maker.lower()) else f"{maker} {model}"
    release = facts.get("build.version.release")
    return f"{full}, Android {release}" if release else full
