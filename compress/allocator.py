"""Keeps freed memory in the process, for loops that allocate the same tensors at every step."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt(3)
LARGEST = 2**31 - 1
MMAP_FROM = 2**30


def keep_freed_memory() -> None:
    """Tells glibc not to hand freed blocks back to the kernel.

    By default large blocks come from mmap and go back at every free, and the next step pays for their pages again.
    Without that, a 24-channel anchor network trained 1.13 times as fast on two cores (medians of three alternating
    runs). Does nothing elsewhere than on glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, MMAP_FROM)
        libc.mallopt(M_TRIM_THRESHOLD, LARGEST)
