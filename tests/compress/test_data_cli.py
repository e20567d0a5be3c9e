"""The catalogue and downloads, against a server of our own."""

import hashlib
import http.server
import io
import threading
import zipfile

import pytest

from compress import cli
from compress.data import catalog
from compress.data.__main__ import main
from compress.data.catalog import CATALOG, Archive, known_set, locate
from compress.data.download import check_room, download, missing_bytes
from compress.errors import BadInput


class _Server(http.server.ThreadingHTTPServer):
    """Serves `content`; `ranges` says whether Range is heeded, `breaks_after` how many bytes it sends at most."""

    def __init__(self, content: bytes, *, ranges: bool = True, breaks_after: int | None = None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content, self.ranges, self.breaks_after = content, ranges, breaks_after
        self.asked: list[str | None] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        assert isinstance(server, _Server)
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if server.breaks_after is None else body[: server.breaks_after])

    def log_message(self, format, *args):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(content, **behaviour):
        server = _Server(content, **behaviour)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _zip(names=("Tiny_HR/", "Tiny_HR/1.png", "Tiny_HR/2.png")):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(name, b"" if name.endswith("/") else b"pixels of " + name.encode() * 20)
    return buffer.getvalue()


def _archive(server, content, **changes):
    facts = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "images": 2, **changes}
    return Archive(url=f"http://127.0.0.1:{server.server_port}/Tiny_HR.zip", **facts)


def _names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


EXTRACTED = ["Tiny_HR", "Tiny_HR/1.png", "Tiny_HR/2.png"]


def test_a_download_is_extracted_and_done_once(serve, tmp_path):
    server, seen = serve(_zip()), []
    archive = _archive(server, _zip())
    images = download(archive, tmp_path / "new", lambda done, total: seen.append((done, total)))
    assert images == tmp_path / "new" / "Tiny_HR"
    assert _names(tmp_path / "new") == EXTRACTED
    assert (images / "2.png").read_bytes().startswith(b"pixels of Tiny_HR/2.png")
    assert seen[-1] == (len(_zip()), len(_zip()))
    assert missing_bytes((archive,), tmp_path / "new") == 0
    download(archive, tmp_path / "new")
    assert server.asked == [None]


def test_a_broken_download_goes_on_where_it_stopped(serve, tmp_path):
    content = _zip()
    server = serve(content, breaks_after=100)
    archive = _archive(server, content)
    with pytest.raises(BadInput, match=r"100 bytes are kept in .*Tiny_HR\.zip\.part; .* again to go on"):
        download(archive, tmp_path)
    assert _names(tmp_path) == ["Tiny_HR.zip.part"]
    assert missing_bytes((archive,), tmp_path) == 2 * len(content) - 100
    server.breaks_after = None
    download(archive, tmp_path)
    assert server.asked == [None, "bytes=100-"]
    assert _names(tmp_path) == EXTRACTED


def test_a_host_without_range_starts_again(serve, tmp_path):
    (tmp_path / "Tiny_HR.zip.part").write_bytes(b"x" * 50)
    server = serve(_zip(), ranges=False)
    download(_archive(server, _zip()), tmp_path)
    assert server.asked == ["bytes=50-"]
    assert _names(tmp_path) == EXTRACTED


def test_another_file_than_the_known_one_is_refused_and_removed(serve, tmp_path):
    server = serve(_zip())
    with pytest.raises(BadInput, match="SHA-256 differs"):
        download(_archive(server, _zip(), sha256="0" * 64), tmp_path)
    assert _names(tmp_path) == []
    with pytest.raises(BadInput, match="changed at its host"):
        download(_archive(server, _zip(), size=len(_zip()) + 1), tmp_path)
    assert _names(tmp_path) == []


@pytest.mark.parametrize("name", ["../outside.png", "/outside.png", "Tiny_HR/../../outside.png", "..\\outside.png"])
def test_a_zip_that_leads_elsewhere_is_refused(serve, tmp_path, name):
    content = _zip(("Tiny_HR/1.png", name))
    folder = tmp_path / "in"
    with pytest.raises(BadInput, match="leads elsewhere"):
        download(_archive(serve(content), content), folder)
    assert _names(tmp_path) == ["in", "in/Tiny_HR.zip"]


def test_a_damaged_or_incomplete_zip_leaves_no_folder(serve, tmp_path):
    damaged = _zip().replace(b"pixels", b"pixelz")
    with pytest.raises(BadInput, match="sound zip, found a damaged one"):
        download(_archive(serve(damaged), damaged), tmp_path / "a")
    fewer = _zip(("Tiny_HR/1.png",))
    with pytest.raises(BadInput, match=r"expected 2 images .* found 1"):
        download(_archive(serve(fewer), fewer), tmp_path / "b")
    assert not (tmp_path / "a/Tiny_HR").exists()
    assert not (tmp_path / "b/Tiny_HR").exists()


def test_without_a_network_nothing_is_written(tmp_path, capsys, monkeypatch):
    archive = Archive(url="http://127.0.0.1:9/Tiny_HR.zip", size=10, sha256="0" * 64, images=2)
    offline = catalog.DataSet(name="DIV2K", kind="train", images=2, size="", licence="", archives=(archive,))
    monkeypatch.setattr("compress.data.__main__.known_set", lambda name: offline)
    with pytest.raises(SystemExit) as stop:
        cli.command_line(main, ["download", "DIV2K", "--to", str(tmp_path / "new")])
    lines = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2
    assert "check the network" in lines[-1]
    assert not (tmp_path / "new").exists()


def test_room_is_checked_first(tmp_path):
    with pytest.raises(BadInput, match=r"expected 1000000000\.0 GB free"):
        check_room(10**18, tmp_path / "not" / "yet")
    assert check_room(1, tmp_path / "not" / "yet") > 1


def test_the_list_says_what_is_here_and_what_is_not(tmp_path, capsys):
    (tmp_path / "Mine/HR").mkdir(parents=True)
    (tmp_path / "Mine/HR/a.png").touch()
    with pytest.raises(SystemExit) as stop:
        cli.command_line(main, ["--data", str(tmp_path), "--to", str(tmp_path)])
    text = capsys.readouterr().out
    rows = {line.split()[1]: line for line in text.splitlines() if line.startswith("│")}
    assert stop.value.code == 0
    assert "not here" in rows["Set5"]
    assert "academic research only" in rows["DIV2K"]
    assert "Mine" in rows
    assert "not here" not in rows["skimage"]


def test_a_training_set_is_here_once_all_of_it_is(tmp_path):
    div2k = known_set("div2k")
    (tmp_path / "DIV2K/DIV2K_train_HR").mkdir(parents=True)
    assert locate(div2k, train_root=tmp_path) is None
    (tmp_path / "DIV2K/DIV2K_valid_HR").mkdir()
    assert locate(div2k, train_root=tmp_path) == tmp_path / "DIV2K"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["download"], "expected the name of a data set"),
        (["download", "DIV3K"], "found 'DIV3K'"),
        (["download", "Set5"], "put its images into"),
        (["upload"], "expected one of list, download"),
    ],
)
def test_refusals_are_one_line(options, said, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.command_line(main, options)
    error = capsys.readouterr().err.strip()
    assert stop.value.code == 2
    assert said in error
    assert "\n" not in error


def test_the_catalogue_is_consistent():
    for one in CATALOG:
        assert sum(archive.images for archive in one.archives) in (0, one.images)
        assert all(len(archive.sha256) == 64 for archive in one.archives)
