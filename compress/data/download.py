"""Downloads of data sets: resumed after a break, verified, extracted whole or not at all."""

import http.client
import os
import shutil
import stat
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from compress.data.catalog import Archive
from compress.errors import BadInput
from compress.files import sha256

CHUNK = 1 << 20
TIMEOUT_S = 30

Progress = Callable[[int, int], object]


def missing_bytes(archives: tuple[Archive, ...], folder: Path) -> int:
    """Room in bytes that `download` still needs: the rest of each zip, and its images, which zip does not shrink."""
    wanted = [archive for archive in archives if not (folder / archive.folder).is_dir()]
    return sum(2 * archive.size - _size(_part(folder, archive)) for archive in wanted)


def check_room(needed: int, folder: Path) -> int:
    """Free bytes where `folder` is or will be. Raises BadInput where they are fewer than `needed`."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise BadInput(
            f"expected {needed / 1e9:.1f} GB free for {folder}, found {free / 1e9:.1f} GB: free some space or choose "
            "another folder with --to."
        )
    return free


def download(archive: Archive, folder: Path, on_progress: Progress = lambda done, total: None) -> Path:
    """Puts the images of an archive into `folder`/<name of the zip>; does nothing where they are already.

    Args:
        archive: what to fetch, with the size and SHA-256 it must have.
        folder: made if need be; holds a `.part` file until the download is complete.
        on_progress: called with (bytes so far, all bytes) of the download.

    Returns:
        The folder of images.

    Raises:
        BadInput: no network, a broken connection (run again to go on), another file than the known one, or a zip
            that is damaged or would write elsewhere.
    """
    images = folder / archive.folder
    if not images.is_dir():
        zipped = _fetch(archive, folder, on_progress)
        _extract(zipped, archive, folder)
        zipped.unlink()
    return images


def _fetch(archive: Archive, folder: Path, on_progress: Progress) -> Path:
    """The whole, verified zip in `folder`."""
    part, zipped = _part(folder, archive), folder / f"{archive.folder}.zip"
    if not zipped.is_file():
        if _size(part) < archive.size:
            _append_rest(archive, part, on_progress)
        os.replace(part, zipped)
    if zipped.stat().st_size != archive.size or sha256(zipped) != archive.sha256:
        zipped.unlink()
        raise BadInput(
            f"expected the known {archive.folder}.zip, found another file from {archive.url} (its SHA-256 differs), "
            "which was removed: run again, and if it happens again the file has changed at its host."
        )
    return zipped


def _append_rest(archive: Archive, part: Path, on_progress: Progress) -> None:
    """Appends what is missing to the .part file, from where an earlier run left off."""
    done = _size(part)
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            if done and answer.status != 206:  # a host without Range sends all from the start
                done = 0
            total = done + int(answer.headers.get("Content-Length", archive.size - done))
            if total != archive.size:
                raise BadInput(
                    f"expected {archive.size} bytes at {archive.url}, found {total}: the file has changed at its host; "
                    "fetch it by hand and look at it."
                )
            part.parent.mkdir(parents=True, exist_ok=True)
            with part.open("ab" if done else "wb") as file:
                while chunk := answer.read(CHUNK):
                    file.write(chunk)
                    done += len(chunk)
                    on_progress(done, archive.size)
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise _broken(archive, part, str(getattr(error, "reason", error))) from error
    if done != archive.size:
        raise _broken(archive, part, "the connection ended early")


def _broken(archive: Archive, part: Path, why: str) -> BadInput:
    kept = f"{_size(part)} bytes are kept in {part}; " if _size(part) else ""
    return BadInput(
        f"expected {archive.size} bytes from {archive.url}, found {why}: {kept}check the network and run the same "
        "command again to go on."
    )


def _extract(zipped: Path, archive: Archive, folder: Path) -> None:
    """Extracts beside the final folder, then renames: the folder of images is there whole or not at all."""
    staging = folder / f".{archive.folder}.part"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        with zipfile.ZipFile(zipped) as content:
            for entry in content.infolist():
                _check_inside(entry, zipped)
            content.extractall(staging)  # verifies the CRC of every file
        inside = staging / archive.folder
        count = sum(path.is_file() for path in inside.glob("*")) if inside.is_dir() else 0
        if count != archive.images:
            raise BadInput(
                f"expected {archive.images} images in {archive.folder}/ of {zipped}, found {count}: "
                "the archive is not the known one; remove it."
            )
        os.replace(inside, folder / archive.folder)
    except zipfile.BadZipFile as error:
        raise BadInput(f"expected a sound zip, found a damaged one at {zipped} ({error}): remove it.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check_inside(entry: zipfile.ZipInfo, zipped: Path) -> None:
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    link = stat.S_ISLNK(entry.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or link or ":" in entry.filename:
        raise BadInput(
            f"expected files below one folder in {zipped}, found {entry.filename!r}, which leads elsewhere: "
            "nothing was extracted; remove the archive."
        )


def _part(folder: Path, archive: Archive) -> Path:
    return folder / f"{archive.folder}.zip.part"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
