"""`python -m runtime.report` as a user runs it."""

import subprocess
import sys

from compress.checkpoint import save_student
from tests.runtime.conftest import Tiny, tiny_student


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runtime.report", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_failing_file_still_gets_its_page(tiny: Tiny, tmp_path):
    """A file of another student: red, exit code 1, and everything is shown."""
    page = tmp_path / "page.html"
    done = run(tiny.float_pt, tiny.float_tflite, "--out", page, "--teacher", tiny.float_pt)
    assert done.returncode == 0, done.stderr
    assert "report: " in done.stdout
    stale = tmp_path / "other.pt"
    save_student(tiny_student(seed=1), stale)
    done = run(stale, tiny.float_tflite, "--out", page)
    assert done.returncode == 1, done.stderr
    text = page.read_text()
    assert ": not ready to ship</title>" in text
    assert 'class="verdict fail"' in text
    assert "stale: made from another student" in text.replace("<wbr>", "")


def test_nonsense_is_refused_before_any_work(tiny: Tiny, tmp_path):
    for arguments, words in (
        ((tiny.float_pt, tiny.float_tflite, "--out", tmp_path / "page.txt"), "expected an .html file"),
        ((tiny.float_pt, tiny.float_tflite, "--out", tmp_path), "expected an .html file"),
        ((tiny.float_pt, tmp_path / "none.tflite", "--out", tmp_path / "page.html"), "expected an exported file, found nothing"),
        ((tiny.float_pt, tiny.float_tflite, "--parity", tiny.float_pt, "--out", tmp_path / "p.html"), "expected a result of"),
    ):  # fmt: skip
        done = run(*arguments)
        assert done.returncode == 2, done.stdout
        assert done.stderr.count("\n") == 1
        assert words in done.stderr
    assert list(tmp_path.iterdir()) == []
