"""Exit codes and sentences of commands that fail."""

import errno
import os

import pytest

from compress.errors import BadInput, StoppedRun, run_command


def _failing(error: BaseException) -> None:
    raise error


def _system(number: int) -> OSError:
    return OSError(number, os.strerror(number), "out/student.pt")


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (BadInput("expected a, found b: do c."), 2, "error: expected a, found b: do c."),
        (StoppedRun("the loss became infinite"), 1, "error: the loss became infinite"),
        (KeyboardInterrupt(), 130, "error: interrupted"),
        (_system(errno.ENOSPC), 2, "error: expected room for the output, found a full disk"),
        (_system(errno.EROFS), 2, "error: expected a path that can be written, found 'out/student.pt': Read-only file system."),
        (_system(errno.EACCES), 2, "error: expected a path that can be read and written, found 'out/student.pt'"),
        (_system(errno.ENOTDIR), 2, "error: expected a path that can be read and written, found 'out/student.pt'"),
    ],
)  # fmt: skip
def test_what_can_go_wrong_outside_is_a_sentence(error, code, sentence, capsys):
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: _failing(error))
    assert ended.value.code == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(sentence)


@pytest.mark.parametrize("error", [ValueError("a defect"), _system(errno.EIO), FileNotFoundError(2, "gone", "of ours")])
def test_a_defect_of_ours_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        run_command(lambda: _failing(error))
