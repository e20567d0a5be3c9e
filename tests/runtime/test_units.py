"""Numbers of bytes as people write them."""

import pytest

from compress.errors import BadInput
from runtime.units import parse_bytes, show_bytes


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("64MB", 64_000_000),
        ("64MiB", 67_108_864),
        ("64mib", 67_108_864),
        (" 64 MB ", 64_000_000),
        ("1.5GB", 1_500_000_000),
        (".5 KiB", 512),
        ("67108864", 67_108_864),
        ("12B", 12),
        ("1.001KB", 1001),
        ("2.MB", 2_000_000),
        ("1TiB", 2**40),
    ],
)
def test_parse_bytes(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    "text", ["", "MB", "64M", "-1MB", "0", "0.1B", "1e9", "64 MB 2", "1,5GB", "nan", "٣MB", "9" * 99]
)
def test_other_texts_are_refused(text):
    with pytest.raises(BadInput, match=r"^expected a number of bytes such as 64MB"):
        parse_bytes(text)


def test_show_bytes():
    assert [show_bytes(count) for count in (0, 1024, 2**20, 1500 * 2**20)] == [
        "0 KiB",
        "1 KiB",
        "1.0 MiB",
        "1,500.0 MiB",
    ]
