"""Which photographs a folder holds, what their results are called, and what the journal knows of them."""

import os
from pathlib import Path

import pytest

from compress.errors import BadInput
from compress.files import around_random, write_text
from runtime.upscale.journal import Journal, Seen, alone_in
from runtime.upscale.tree import photographs_below, result_names, sweep, sweep_one


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(path.name)
    return path


def test_links_hidden_files_and_results_are_passed_over(tmp_path):
    for name in ("a.jpg", "deep/er/b.PNG", "notes.txt", ".hidden.png", ".git/c.png", "out/a.png", "deep/out/d.png"):
        touch(tmp_path / name)
    (tmp_path / "deep" / "loop").symlink_to(tmp_path)
    (tmp_path / "link.png").symlink_to(tmp_path / "a.jpg")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.png")
    tree = photographs_below(tmp_path, tmp_path / "out")
    expected = ["a.jpg", "broken.png", "deep/er/b.PNG", "deep/out/d.png", "link.png"]
    assert [path.as_posix() for path in tree.photographs] == expected
    assert tree.passed_over() == "2 other files, 2 hidden, 1 links to folders"


@pytest.mark.parametrize(
    ("photographs", "expected"),
    [
        (["a.jpg", "b.png"], ["a.png", "b.png"]),
        (["a.jpg", "a.png", "b.jpg"], ["a.jpg.png", "a.png.png", "b.png"]),
        (["A.jpg", "a.jpg"], ["A.jpg.png", "a.jpg_2.png"]),
        (["caf\u00e9.jpg", "cafe\u0301.jpg"], ["caf\u00e9.jpg_2.png", "cafe\u0301.jpg.png"]),
        (["a.jpg", "a.tif", "a.jpg.tif"], ["a.jpg_2.png", "a.tif.png", "a.jpg.png"]),
        (["x/a.jpg", "y/a.jpg"], ["x/a.png", "y/a.png"]),
    ],
)
def test_no_two_results_share_a_name(photographs, expected):
    names = result_names([Path(photo) for photo in photographs], lambda photo: ".png")
    assert [names[Path(photo)].as_posix() for photo in photographs] == expected


def test_only_unfinished_files_are_swept(tmp_path):
    kept = [touch(tmp_path / name) for name in ("a.png", ".part.png", "b.part.png", "deep/.a.png")]
    gone = [touch(tmp_path / name) for name in (".a.png.x7_ab3cd.part.png", "deep/.b.tiff.abcdefgh.part.tiff")]
    sweep(tmp_path)
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in gone)


@pytest.mark.parametrize("name", ["a.png", f"{'b' * 251}.png", f"{'写' * 83}.png"])
def test_what_is_left_of_one_result_is_swept_alone(tmp_path, name):
    """Not that of a.png.png, which another process may have in work."""
    before, after = around_random(tmp_path / name)
    left = touch(tmp_path / f"{before}x7_ab3cd{after}")
    other = touch(tmp_path / ".a.png.png.x7_ab3cd.part.png")
    sweep_one(tmp_path / name)
    assert not left.exists()
    assert other.exists()
    write_text(tmp_path / name, "whole")
    assert (tmp_path / name).read_text() == "whole"


@pytest.fixture
def done(tmp_path):
    """A photograph, its finished result, and the folder of results."""
    photo, out = touch(tmp_path / "photos" / "a.png"), tmp_path / "out"
    out.mkdir()
    journal = Journal(out)
    read = Seen.of(photo)
    journal.begin("a.png", "a.png", "this way")
    touch(out / "a.png")
    journal.finish("a.png", "a.png", "this way", read)
    return photo, out


def test_journal_outlives_a_kill_and_a_copy(done):
    photo, out = done
    with (out / ".pocketsr-upscale.jsonl").open("a") as file:
        file.write('{"out": "b.png", "pho')  # torn
    os.utime(out / "a.png", ns=(1, 1))
    os.utime(photo, ns=(1, 1))
    journal = Journal(out)
    assert journal.is_done("a.png", "a.png", photo, "this way")
    assert journal.may_write("a.png")


@pytest.mark.parametrize("change", ["settings", "photo", "result", "missing"])
def test_journal_tells_what_changed(done, change):
    photo, out = done
    if change == "photo":
        photo.write_text("other")
    if change == "result":
        (out / "a.png").write_text("other")
    if change == "missing":
        (out / "a.png").unlink()
    journal = Journal(out)
    assert not journal.is_done("a.png", "a.png", photo, "that way" if change == "settings" else "this way")
    assert journal.may_write("a.png") == (change != "result")
    assert journal.may_write("somebody.png")
    touch(out / "somebody.png")
    assert not journal.may_write("somebody.png")


def test_what_is_put_where_nothing_came_of_a_result_is_not_ours(done):
    photo, out = done
    journal = Journal(out)
    journal.begin("a.png", "a.png", "that way")
    journal.begin("b.png", "b.png", "this way")
    for name in ("a.png", "b.png"):
        journal.give_up(name)
    for known in (journal, Journal(out)):
        assert known.is_done("a.png", "a.png", photo, "this way")
        assert known.may_write("b.png")
    touch(out / "b.png")
    (out / "a.png").write_text("changed by hand")
    for known in (journal, Journal(out)):
        assert not known.may_write("b.png")
        assert not known.may_write("a.png")


def test_one_run_in_a_folder(tmp_path):
    with alone_in(tmp_path), pytest.raises(BadInput, match="another run"), alone_in(tmp_path):
        pass
    with alone_in(tmp_path):
        pass
