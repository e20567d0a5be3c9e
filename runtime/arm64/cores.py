"""The cores that can be emulated, and what a system with them says of its processor."""

from dataclasses import dataclass

from compress.errors import BadInput

_V8 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_V8_2 = f"{_V8} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"


@dataclass(frozen=True)
class Core:
    """A model of core that qemu 7.2 emulates.

    Attributes:
        name: qemu's.
        part: Arm's number of it (MIDR_EL1, bits 15 to 4), by which LiteRT chooses its kernels.
        features: as Linux names them. 'asimddp' is the dot product of int8, 'asimdhp' arithmetic of float16.
    """

    name: str
    part: int
    features: str

    def cpuinfo(self, count: int) -> str:
        """/proc/cpuinfo of a machine with `count` of this core."""
        return "".join(
            f"processor\t: {i}\nBogoMIPS\t: 100.00\nFeatures\t: {self.features}\nCPU implementer\t: 0x41\n"
            f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {self.part:#05x}\nCPU revision\t: 0\n\n"
            for i in range(count)
        )


CORES = {
    core.name: core
    for core in (
        Core("cortex-a35", 0xD04, _V8),
        Core("cortex-a53", 0xD03, _V8),
        Core("cortex-a57", 0xD07, _V8),
        Core("cortex-a72", 0xD08, _V8),
        Core("cortex-a76", 0xD0B, _V8_2),
        Core("neoverse-n1", 0xD0C, _V8_2),
    )
}
DEFAULT = "cortex-a76"


def core_named(name: str) -> Core:
    """A core by qemu's name. Raises BadInput for others, and for 'max', with which qemu 7.2 computes int8 wrongly."""
    if name in CORES:
        return CORES[name]
    found = f"{name!r}, with which qemu 7.2 computes int8 wrongly" if name.startswith("max") else repr(name)
    raise BadInput(f"expected a core out of {', '.join(CORES)}, found {found}: choose one.")
