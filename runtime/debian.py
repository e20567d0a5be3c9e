"""Debian's packages in a folder of ours: fetched by a private APT, unpacked without root, nothing installed."""

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from compress.errors import BadInput

BOOKWORM = "bookworm"
KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
STAMP = ".packages.json"


def unpack(
    packages: Sequence[str],
    folder: Path,
    *,
    architecture: str,
    suite: str = BOOKWORM,
    dependencies: bool = True,
    say: Callable[[str], None] = print,
) -> dict[str, str]:
    """Unpacks Debian packages into a folder, which then is the root of a small file system.

    Nothing is configured or run: no maintainer scripts, no links of the alternatives system. The packages come from the
    machine's own Debian mirror, or else Debian's archive, and are verified by APT. Where `folder` holds them already,
    nothing is done. A kill leaves no half-made folder, and the next call goes on with what was downloaded. APT's
    lists and downloads lie in `apt` beside the folder.

    Args:
        packages: names, as Debian's.
        folder: that will hold etc, lib, usr...; replaced where other packages are in it.
        architecture: Debian's name: 'arm64', 'amd64'; see `own_architecture`.
        suite: of Debian: 'bookworm', 'trixie', 'bookworm-backports' (over bookworm).
        dependencies: also all packages that those depend on (not those that they recommend).
        say: takes one line of progress.

    Returns:
        the version of every package that was unpacked, by name.

    Raises:
        BadInput: no APT here, no network, an unknown package or suite, a folder that this function did not make.
    """
    wanted = {"packages": sorted(packages), "suite": suite, "architecture": architecture, "dependencies": dependencies}
    _need_apt()
    state = folder.parent / "apt" / f"{suite}-{architecture}"
    state.mkdir(parents=True, exist_ok=True)
    with _alone(state / "lock", say) as lock:
        if folder.exists():
            found = _stamp(folder)
            if found is None:
                raise BadInput(
                    f"expected a folder for Debian packages, found something else in {folder}: move it away."
                )
            if found["wanted"] == wanted:
                return found["versions"]
        apt = _Apt(state.resolve(), architecture, suite, lock)
        say(f"asking Debian {suite} for {architecture}: {' '.join(packages)}")
        apt.update()
        files = apt.download(packages, dependencies, say)
        _unpack(files, folder, wanted, say)
        shutil.rmtree(apt.archives)
        return _stamp(folder)["versions"]


def own_architecture() -> str:
    """Debian's name of this machine's architecture. Raises BadInput where there is no dpkg."""
    _need_apt()
    return subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()


class _Apt:
    """An APT whose configuration, state and cache are a folder of ours; proxies and the like stay the machine's."""

    def __init__(self, state: Path, architecture: str, suite: str, lock: int):
        self.archives, self._lock = state / "cache" / "archives", lock
        self._suite, self._conf = suite, state / "apt.conf"
        for name in ("lists/partial", "cache/archives/partial", "none"):
            (state / name).mkdir(parents=True, exist_ok=True)
        (state / "status").write_text("")  # as if nothing were installed: so dependencies are found in full
        (state / "sources.list").write_text(_sources(suite))
        self._conf.write_text(f"""\
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::IndexTargets::deb::DEP-11;
Dir::State "{state}";
Dir::State::status "{state}/status";
Dir::Cache "{state}/cache";
Dir::Etc::sourcelist "{state}/sources.list";
Dir::Etc::sourceparts "{state}/none";
Dir::Etc::preferences "{state}/none/preferences";
Dir::Etc::preferencesparts "{state}/none";
APT::Architecture "{architecture}";
#clear APT::Architectures;
APT::Architectures {{ "{architecture}"; }};
APT::Default-Release "{suite}";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "30";
""")

    def update(self) -> None:
        """Fetches the lists of packages, where they have changed."""
        self._run(["update"])

    def download(self, packages: Sequence[str], dependencies: bool, say: Callable[[str], None]) -> list[Path]:
        """Fetches packages that are not here yet; their files, in the order in which APT names them."""
        command = ["install", "--yes", "--reinstall", *packages] if dependencies else ["download", *packages]
        listed = [line.split() for line in self._run([*command, "--print-uris"]) if line.startswith("'")]
        say(f"downloading {len(listed)} packages, {sum(int(size) for _, _, size, *_ in listed) / 1e6:.1f} MB")
        self._run([*command, "--download-only"] if dependencies else command, say)
        return [self.archives / name for _, name, *_ in listed]

    def _run(self, arguments: list[str], say: Callable[[str], None] | None = None) -> list[str]:
        """Runs apt-get and gives its lines; `say` hears of every package that arrives."""
        command = ["apt-get", "--quiet", "--config-file", str(self._conf), *arguments]
        lines: list[str] = []
        with subprocess.Popen(
            command,
            cwd=self.archives,  # where `apt-get download` writes
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "LC_ALL": "C"},
            pass_fds=[self._lock],  # an APT that outlives a killed process still keeps others waiting
        ) as process:
            assert process.stdout
            for line in process.stdout:
                lines.append(line.rstrip())
                if say and (got := re.match(r"Get:\d+ \S+ \S+ \S+ (\S+) \S+ (\S+) \[", line)):
                    say(f"  {got[1]} {got[2]}")
        if process.returncode:
            raise BadInput(self._complaint(lines))
        return lines

    def _complaint(self, lines: list[str]) -> str:
        """What APT said, as a sentence."""
        text = "\n".join(lines)
        unknown = re.search(r"Unable to locate package (\S+)|Package '?([^' ]+)'? has no installation candidate", text)
        if unknown:
            return (
                f"expected packages of Debian {self._suite}, found none named {unknown[1] or unknown[2]}: check the name and "
                "the suite."
            )
        said = next(
            (line[2:].strip() for line in lines if line.startswith("E:")), lines[-1] if lines else "nothing"
        ).rstrip(".")
        if re.search(r"resolv|connect|timed out|unreachable|Failed to fetch|404", text, re.IGNORECASE):
            return (
                f"expected Debian's {self._suite} over the network, found that APT cannot fetch it ({said}): check the "
                "network and the name of the suite."
            )
        return f"expected APT to fetch packages of Debian {self._suite}, found that it cannot ({said}): correct that."


def _sources(suite: str) -> str:
    """APT's sources for a suite, and for the suite that it is laid over."""
    if not KEYS.is_file():
        raise BadInput(f"expected Debian's keys in {KEYS}, found none: sudo apt install debian-archive-keyring.")
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"], capture_output=True, text=True
    ).stdout.split()
    mirror = next((uri for uri in targets if re.search(r"/debian/?$", uri)), None)
    if mirror is None:
        raise BadInput(
            "expected a mirror of Debian among APT's sources, found none: add one, which need not be for this release "
            "(packages are verified with Debian's keys, and only unpacked)."
        )
    suites = dict.fromkeys((suite.removesuffix("-backports"), suite))
    return "".join(f"deb [signed-by={KEYS}] {mirror} {one} main\n" for one in suites)


def _unpack(files: list[Path], folder: Path, wanted: dict[str, object], say: Callable[[str], None]) -> None:
    """Unpacks beside the folder, and puts it in place when it is whole."""
    part, old = folder.with_name(f".{folder.name}.part"), folder.with_name(f".{folder.name}.old")
    for left in (part, old):
        if left.exists():
            shutil.rmtree(left)
    part.mkdir(parents=True)
    say(f"unpacking into {folder}")
    versions = {}
    for file in files:
        result = subprocess.run(["dpkg-deb", "--extract", str(file), str(part)], capture_output=True, text=True)
        if result.returncode:
            raise BadInput(
                f"expected to unpack {file.name} into {folder}, found that dpkg-deb cannot "
                f"({result.stderr.strip().splitlines()[-1]}): free some space, and run again."
            )
        name, version, _ = file.name.split("_")
        versions[name] = version.replace("%3a", ":")
    (part / STAMP).write_text(json.dumps({"wanted": wanted, "versions": versions}, indent=1))
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _stamp(folder: Path) -> dict[str, dict[str, str]] | None:
    """What `unpack` wrote into a folder; None where it did not."""
    try:
        return json.loads((folder / STAMP).read_text())
    except (OSError, ValueError):
        return None


def _need_apt() -> None:
    for program in ("apt-get", "dpkg-deb"):
        if not shutil.which(program):
            raise BadInput(
                f"expected Debian or Ubuntu, whose {program} fetches packages, found none: run this on one of them, or in a "
                "container of theirs."
            )


@contextlib.contextmanager
def _alone(lock: Path, say: Callable[[str], None]) -> Iterator[int]:
    """Waits until no other process unpacks with the same state; yields the lock's file. It ends with its processes."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another process that fetches packages")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
