"""A headless Chromium, driven through its DevTools protocol over a pipe: no port, no library, no download of its own."""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGE = "chromium-headless-shell"
BINARY = Path("usr/lib/chromium") / PACKAGE
OF_LIBC = (
    "ld-linux", "libc.so", "libc_", "libm.so", "libmvec", "libdl.so", "libpthread", "librt.so", "libresolv", "libnss_", "libnsl",
    "libutil.so", "libanl", "libthread_db", "libBrokenLocale", "libmemusage", "libpcprofile",
)  # fmt: skip
ON_THREE_AND_FOUR = """
import fcntl, os, sys
high = [fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3]]
os.dup2(high[0], 3), os.dup2(high[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""  # where the browser looks for its pipes
PATIENCE = 60.0  # seconds for anything
KEYS = {"ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40, "Escape": 27, "Enter": 13, "Tab": 9, "Home": 36, "End": 35}


def find_chromium() -> Path | None:
    """The browser of this machine: that of the environment's POCKETSR_CHROMIUM, else one on PATH."""
    named = os.environ.get("POCKETSR_CHROMIUM")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), None)
    return Path(found) if found else None


def unpacked_environment(root: Path) -> dict[str, str]:
    """Variables with which a Chromium below a folder of unpacked packages finds its libraries and fonts.

    The C library stays the machine's own, whose loader starts the browser: Debian's in its place would not fit it.
    """
    links = root / "libraries"
    links.mkdir(exist_ok=True)
    for library in (*root.glob("lib/*-linux-gnu/*.so*"), *root.glob("usr/lib/*-linux-gnu/**/*.so*")):
        link = links / library.name
        if not library.name.startswith(OF_LIBC) and not link.exists():
            link.unlink(missing_ok=True)  # of a folder that was moved
            link.symlink_to(library.resolve())
    return {"LD_LIBRARY_PATH": str(links), "FONTCONFIG_SYSROOT": str(root)}


class Chromium:
    """One browser with one page. Use it in a `with` block; what the page logs and asks for is in `console` and `requests`."""

    def __init__(self, binary: Path, environment: dict[str, str] | None = None):
        self.console: list[str] = []
        self.requests: list[str] = []
        self._number, self._session, self._buffer = 0, "", b""
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        reading, to_browser = os.pipe()
        from_browser, writing = os.pipe()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                   "--no-first-run", "--disable-background-networking", "--remote-debugging-pipe",
                   f"--user-data-dir={self._profile.name}", "about:blank"]  # fmt: skip
        command = [sys.executable, "-c", ON_THREE_AND_FOUR, str(reading), str(writing), str(binary), *options]
        self._process = subprocess.Popen(
            command, pass_fds=(reading, writing), env={**os.environ, **(environment or {})},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(reading)
        os.close(writing)
        self._out, self._in = to_browser, from_browser

    def __enter__(self) -> "Chromium":
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._out)
        os.close(self._in)
        self._profile.cleanup()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol and gives its result. Raises RuntimeError where the browser refuses."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            found = self._read()
            if found.get("id") == self._number:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']['message']}")
                return found["result"]

    def open(
        self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False, script: bool = True
    ) -> None:
        """Opens a file, at a width and height in CSS pixels, in light or dark mode, with or without JavaScript."""
        self.console.clear()
        self.requests.clear()
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self.resize(width, height)
        self.prefer(dark=dark)
        self.call("Page.navigate", url=path.resolve().as_uri())
        end = time.monotonic() + PATIENCE
        while not self.run("document.readyState === 'complete' && location.protocol === 'file:'"):
            assert time.monotonic() < end, "the page does not finish loading"

    def resize(self, width: int, height: int) -> None:
        mobile = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def prefer(self, *, dark: bool = False, still: bool = False) -> None:
        """Sets the colour scheme and whether motion is to be reduced."""
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"},
        ]
        self.call("Emulation.setEmulatedMedia", features=features)

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page. Raises RuntimeError for an exception in it."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"].get("description", expression))
        return result["result"].get("value")

    def press(self, key: str, times: int = 1) -> None:
        """Presses a key, such as 'ArrowRight' or '+'."""
        code = {"windowsVirtualKeyCode": KEYS[key], "code": key} if key in KEYS else {"text": key}
        text = {"text": "\r"} if key == "Enter" else {}
        for _ in range(times):
            self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **code, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key, **code)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Drags with the left button, from and to points of the window."""
        for kind, (x, y), buttons in (("mousePressed", start, 1), ("mouseMoved", end, 1), ("mouseReleased", end, 0)):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=buttons, clickCount=1)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Writes what is seen, or the whole page, as a PNG."""
        options: dict[str, Any] = {"captureBeyondViewport": whole}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **options)["data"]))

    def pdf(self, path: Path) -> None:
        """Prints the page on A4."""
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"paperWidth": 8.27, "paperHeight": 11.69, "printBackground": True}
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", **options)["data"]))

    def _read(self) -> dict[str, Any]:
        """The next message; what the page logs or asks for is noted on the way."""
        while b"\0" not in self._buffer:
            content = os.read(self._in, 1 << 20)
            if not content:
                raise RuntimeError(f"the browser ended with {self._process.poll()}")
            self._buffer += content
        line, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(line)
        given = message.get("params", {})
        match message.get("method"):
            case "Runtime.consoleAPICalled" if given["type"] in ("error", "warning", "assert"):
                self.console.append(str([one.get("value") for one in given["args"]]))
            case "Runtime.exceptionThrown":
                self.console.append(given["exceptionDetails"]["text"])
            case "Log.entryAdded" if given["entry"]["level"] in ("error", "warning"):
                self.console.append(given["entry"]["text"])
            case "Network.requestWillBeSent" if not given["request"]["url"].startswith("data:"):
                self.requests.append(given["request"]["url"])
        return message
