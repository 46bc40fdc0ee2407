"""A headless Chromium, driven over a pipe by the DevTools protocol: only the browser is needed."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

PROGRAM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
WORDS = "no-sandbox disable-gpu hide-scrollbars remote-debugging-pipe no-first-run "
WORDS += "disable-background-networking disable-component-update disable-sync headless=new"
LOCAL = ("file:", "data:", "blob:", "http://127.0.0.1:", "ws://127.0.0.1:")
FLAGS = [f"--{word}" for word in WORDS.split()]


class Browser:
    """One page in one browser.

    ``messages`` holds what the page wrote to its console, errors included, and its requests.
    """

    def __init__(self, profile: Path, seconds: float = 120):
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        redirect = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        program = [str(PROGRAM), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", redirect, "browser", *program],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._seconds, self._numbers, self._rest = seconds, itertools.count(1), b""
        self.messages: list[dict[str, Any]] = []
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        attached = self._send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command to the page and return its answer."""
        return self._send(method, self._session, **params)

    def _send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        message |= {"sessionId": session} if session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != number:
            self.messages.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + self._seconds
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0, deadline - time.monotonic()))
            more = os.read(self._read, 1 << 20) if ready else b""
            assert more, "the browser does not answer"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(
        self, page: Path | str, width: int = 1300, height: int = 900, dark: bool = False
    ) -> None:
        """Load a file, as a double click does, or an address, and wait for it."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **screen)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[theme])
        self.messages.clear()
        url = page if isinstance(page, str) else page.absolute().as_uri()
        self.send("Page.navigate", url=url)
        self.wait(f"document.readyState == 'complete' && location.href == {json.dumps(url)}")

    def wait(self, condition: str) -> None:
        """Wait until a JavaScript expression is true in the page."""
        deadline = time.monotonic() + self._seconds
        while not self.run(f"!!({condition})"):
            assert time.monotonic() < deadline, f"waited in vain for {condition}"
            time.sleep(0.1)

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        options = {"expression": script, "returnByValue": True, "awaitPromise": True}
        answer = self.send("Runtime.evaluate", **options)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """Press a key."""
        event = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        for kind in ("rawKeyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, **event)

    def click(self, selector: str) -> None:
        """Click on the middle of an element."""
        self.drag([self.place(selector)])

    def place(self, selector: str, x: float = 0.5, y: float = 0.5) -> tuple[float, float]:
        """Scroll to an element; return the place in it that is x and y, shares of its size."""
        found = f"document.querySelector({json.dumps(selector)})"
        script = f"""(() => {{ const e = {found}; e.scrollIntoView({{block: 'center'}});
        const b = e.getBoundingClientRect();
        return [b.x + {x} * b.width, b.y + {y} * b.height]; }})()"""
        return tuple(self.run(script))

    def drag(self, points: list[tuple[float, float]]) -> None:
        """Press the mouse at the first point, move it along the others, and let go."""
        kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 1), "mouseReleased"]
        for kind, (x, y) in zip(kinds, [*points, points[-1]], strict=True):
            event = {"x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1}
            self.send("Input.dispatchMouseEvent", type=kind, **event)

    def picture(self, path: Path) -> None:
        """Write what is visible as a PNG."""
        data = self.send("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def complaints(self) -> list[dict[str, Any]]:
        """Return errors and warnings, and requests for anything but the page and its pictures, or
        this machine.
        """
        bad = ("Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening")

        def complains(message: dict[str, Any]) -> bool:
            if message.get("method") != "Network.requestWillBeSent":
                return message.get("method") in bad
            return not message["params"]["request"]["url"].startswith(LOCAL)

        return list(filter(complains, self.messages))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        os.close(self._read)
        os.close(self._write)
