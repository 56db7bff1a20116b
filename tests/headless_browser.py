"""A headless Chromium that tests look at pages with, over its own debugging pipe; tests skip where there is none."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
_SWITCHES = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe")


class Page:
    """One page; `addresses` are all that it asked for, `complaints` its script's errors and warnings."""

    def __init__(self, write: Any, read: Any) -> None:
        self._write, self._read, self._last, self._session = write, read, 0, None
        self.addresses: list[str] = []
        self.complaints: list[str] = []
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self._ask(f"{domain}.enable")

    def open(self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Loads the file `path` in a window of that size."""
        self.resize(width, height)
        self.emulate("", dark=dark)
        self._ask("Page.navigate", url=path.resolve().as_uri())
        self.wait("document.readyState === 'complete'")

    def resize(self, width: int, height: int = 900) -> None:
        """Gives the window another size."""
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def emulate(self, medium: str, *, dark: bool = False) -> None:
        """Shows the page on `medium` ("print", or "" for the screen), light or dark."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", media=medium, features=[scheme])

    def run(self, script: str) -> Any:
        """The value of `script`; a promise is waited for."""
        found = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition: str, *, frames: int = 2000) -> None:
        """Returns once `condition` holds. Frames are counted, not seconds: a busy machine draws fewer of them."""
        for _ in range(frames):
            if self.run(condition):
                return
            self.run("new Promise((done) => setTimeout(done, 20))")
        raise AssertionError(f"never true: {condition}")

    def press(self, key: str) -> None:
        """Presses a key that has a name, such as ArrowRight or Tab."""
        codes = {"Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13}
        for kind in ("rawKeyDown", "keyUp"):
            self._ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key])

    def pdf(self) -> bytes:
        """The page on A4 paper."""
        found = self._ask("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=True)
        return base64.b64decode(found["data"])

    def picture(self, *, whole: bool = False, top: int = 0) -> bytes:
        """What the window shows, or the whole page, as PNG."""
        if not whole:
            self.run(f"window.scrollTo(0, {top})")
        return base64.b64decode(self._ask("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def _ask(self, method: str, **parameters: Any) -> Any:
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._write.write(json.dumps(message).encode() + b"\0")
        self._write.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _next(self) -> Any:
        text = bytearray()
        while (byte := self._read.read(1)) != b"\0":
            assert byte, "the browser has gone"
            text += byte
        answer = json.loads(text)
        self._note(answer)
        return answer

    def _note(self, event: Any) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.addresses.append(parameters["request"]["url"])
        elif event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))
        elif event.get("method") == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
            self.complaints.append(str([part.get("value") for part in parameters["args"]]))


@contextmanager
def browser() -> Iterator[Page]:
    """A page in a browser of its own, which ends with the block."""
    assert PROGRAM is not None
    to_browser, from_us = os.pipe()
    to_us, from_browser = os.pipe()

    def place() -> None:  # the browser reads its commands from descriptor 3 and answers on 4
        os.dup2(to_browser, 1000), os.dup2(from_browser, 1001)
        os.dup2(1000, 3), os.dup2(1001, 4)

    with tempfile.TemporaryDirectory() as profile:
        process = subprocess.Popen(
            [PROGRAM, *_SWITCHES, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=place,
            close_fds=False,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser), os.close(from_browser)
        try:
            with os.fdopen(from_us, "wb") as write, os.fdopen(to_us, "rb") as read:
                yield Page(write, read)
        finally:
            process.terminate()
            process.wait()
