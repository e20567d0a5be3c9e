"""Figures held against limits."""

import math
from collections.abc import Iterator

from export.metadata import INTEGER
from runtime.latency import Latency
from runtime.parity.agreement import Agreement
from runtime.parity.limits import Limits
from runtime.parity.results import SetLoss

MEBIBYTE = 2**20


def differing(agreement: Agreement, precision: str, limits: Limits) -> Iterator[str]:
    """The limits on differences to the reference that a file misses. Written so that nan misses."""
    if precision not in INTEGER:
        if not _at_least(agreement.psnr, limits.float_psnr):
            yield f"PSNR against the reference {agreement.psnr:.2f} dB, limit {limits.float_psnr:g} dB"
        return
    if not _at_most(agreement.max_lsb, limits.int8_lsb):
        yield f"largest difference {agreement.max_lsb:.2f} LSB, limit {limits.int8_lsb:g} LSB"
    if not _at_least(agreement.within, limits.int8_within):
        yield f"{agreement.within:.2%} of values within 1 LSB, limit {limits.int8_within:.2%}"
    if not _at_least(agreement.identical, limits.int8_identical):
        yield f"{agreement.identical:.2%} of values identical, limit {limits.int8_identical:.2%}"


def losing(sets: tuple[SetLoss, ...], limits: Limits) -> Iterator[str]:
    """The limits on quality against ground truth that a file misses."""
    for one in sets:
        if not _at_most(one.loss, limits.loss):
            yield f"loss on {one.name} {one.loss:.3f} dB, limit {limits.loss:g} dB"
        change = math.nan if one.lpips_change is None else one.lpips_change
        if not _at_most(change, limits.lpips_change):
            yield f"LPIPS on {one.name} changes by {change:+.4f}, limit {limits.lpips_change:g}"


def costing(
    file_bytes: int,
    latency: Latency | None,
    peak_bytes: int | None,
    pytorch: Latency,
    pytorch_peak_bytes: int | None,
    limits: Limits,
    *,
    native: bool,
) -> Iterator[str]:
    """The limits on size, time and memory that a file misses; time and memory of a file that was only evaluated or
    emulated have none, and what a native engine cannot measure misses its limit."""
    if not _at_most(file_bytes / 1000, limits.size_kb):
        yield f"size {file_bytes / 1000:.1f} kB, limit {limits.size_kb:g} kB"
    if not native:
        return
    ratio = latency.run.median / pytorch.run.median if latency else math.nan
    if not _at_most(ratio, limits.latency_ratio):
        yield f"latency {ratio:.2f} times PyTorch's, limit {limits.latency_ratio:g} times"
    if not _at_most(math.nan if peak_bytes is None else peak_bytes / MEBIBYTE, limits.peak_mib):
        found = "could not be measured" if peak_bytes is None else f"{peak_bytes / MEBIBYTE:.1f} MiB"
        yield f"peak memory {found}, limit {limits.peak_mib:g} MiB"
    share = math.nan if peak_bytes is None or not pytorch_peak_bytes else peak_bytes / pytorch_peak_bytes
    if not _at_most(share, limits.peak_ratio):
        found = "could not be compared with" if math.isnan(share) else f"{share:.2f} times"
        yield f"peak memory {found} PyTorch's, limit {limits.peak_ratio:g} times"


def _at_most(value: float, limit: float | None) -> bool:
    """False for nan."""
    return limit is None or value <= limit


def _at_least(value: float, limit: float | None) -> bool:
    """False for nan."""
    return limit is None or value >= limit
