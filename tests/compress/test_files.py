"""Files are written whole or not at all, and only in the place of files."""

import os
import stat

import pytest

from compress.errors import BadInput
from compress.files import check_writable, write_text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize("write", [check_writable, lambda path: write_text(path, "text")])
def test_a_pipe_or_a_device_is_not_replaced(tmp_path, write):
    """Else a `--json /dev/null` of root takes the device away from the whole machine."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInput, match="expected a file to write, found a device, pipe or socket at"):
        write(tmp_path / "pipe")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert [one.name for one in tmp_path.iterdir()] == ["pipe"]


def test_a_file_is_replaced_and_its_folder_made(tmp_path):
    for text in ("one", "two"):
        write_text(tmp_path / "folder" / "a.txt", text)
        assert (tmp_path / "folder" / "a.txt").read_text() == text
    assert [one.name for one in (tmp_path / "folder").iterdir()] == ["a.txt"]
