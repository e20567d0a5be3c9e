"""Debian's packages in a folder: whole, once, and in a sentence where they cannot be had."""

import shutil
import subprocess

import pytest

from compress.errors import BadInput
from runtime import debian
from runtime.debian import STAMP, own_architecture, unpack


def quiet(_: str) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder that Debian's lists are fetched into once, with a package that needs no other."""
    if not shutil.which("apt-get"):
        pytest.skip("no apt-get here")
    folder = tmp_path_factory.mktemp("debian with a blank")
    try:
        unpack(["netbase"], folder / "netbase", architecture="arm64", say=quiet)
    except BadInput as error:
        if "over the network" in str(error):
            pytest.skip(str(error))
        raise
    return folder


def test_unpacks_packages_and_what_they_depend_on(shelf):
    assert (shelf / "netbase/etc/services").is_file()
    lines: list[str] = []
    versions = unpack(["libstdc++6"], shelf / "cxx", architecture="arm64", say=lines.append)
    assert {"libstdc++6", "libgcc-s1", "libc6"} <= set(versions)
    assert (shelf / "cxx/lib/ld-linux-aarch64.so.1").exists()
    assert (shelf / "cxx/usr/lib/aarch64-linux-gnu/libstdc++.so.6").exists()
    assert any(line.startswith("downloading 4 packages") for line in lines)
    again: list[str] = []
    assert unpack(["libstdc++6"], shelf / "cxx", architecture="arm64", say=again.append) == versions
    assert not again, "the second call has nothing to do"
    assert unpack(["netbase"], shelf / "cxx", architecture="arm64", dependencies=False, say=quiet).keys() == {"netbase"}
    assert not (shelf / "cxx/lib").exists(), "other packages replace what was there"
    assert not [path for path in shelf.iterdir() if path.name.startswith(".")]


def test_refuses_unknown_packages_and_leaves_nothing(shelf):
    with pytest.raises(BadInput, match="found none named no-such-package: check the name"):
        unpack(["netbase", "no-such-package"], shelf / "none", architecture="arm64", say=quiet)
    assert not (shelf / "none").exists()


def test_refuses_a_folder_that_it_did_not_make(shelf):
    (shelf / "mine").mkdir()
    (shelf / "mine/letter").write_text("mine")
    with pytest.raises(BadInput, match=r"found something else in .*mine: move it away"):
        unpack(["netbase"], shelf / "mine", architecture="arm64", say=quiet)
    assert [path.name for path in (shelf / "mine").iterdir()] == ["letter"]


def test_a_damaged_package_leaves_no_folder(shelf, monkeypatch):
    run = subprocess.run

    def truncated(command, **options):
        if command[0] == "dpkg-deb":
            with open(command[2], "r+b") as file:
                file.truncate(3000)
        return run(command, **options)

    monkeypatch.setattr(debian.subprocess, "run", truncated)
    with pytest.raises(BadInput, match=r"expected to unpack netbase.*found that dpkg-deb cannot"):
        unpack(["netbase"], shelf / "damaged", architecture="arm64", say=quiet)
    assert not (shelf / "damaged").exists()


def test_no_network(tmp_path, monkeypatch):
    if not shutil.which("apt-get"):
        pytest.skip("no apt-get here")
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(BadInput, match="over the network, found that APT cannot fetch it"):
        unpack(["netbase"], tmp_path / "root", architecture="arm64", say=quiet)
    assert not (tmp_path / "root" / STAMP).exists()


def test_no_apt(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="expected Debian or Ubuntu, whose apt-get"):
        unpack(["netbase"], tmp_path / "root", architecture="arm64")
    with pytest.raises(BadInput, match="expected Debian or Ubuntu"):
        own_architecture()
