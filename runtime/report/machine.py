"""What a figure was measured on, in words."""

import os
import platform
import re
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def machine() -> str:
    """Processor, cores that this process may use, and system: 'AMD EPYC, 2 cores, Linux 6.1 x86_64'."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = "1 core" if cores == 1 else f"{cores} cores"
    release = ".".join(platform.release().split(".")[:2])
    return f"{_processor()}, {count}, {platform.system()} {release} {platform.machine()}"


def _processor() -> str:
    if CPUINFO.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", CPUINFO.read_text(errors="replace"), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or "unnamed processor"
