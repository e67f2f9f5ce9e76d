"""A headless Chromium on one page, driven over a pipe: what went wrong on it, how it lies on a screen, a screenshot."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Scripts' exceptions and console.error, what the browser itself complains about, and requests beside the page's own.
DOMAINS = ("Runtime", "Log", "Network", "Page")

# What a page looks like from within.
MEASURE = """({
    overflow: document.documentElement.scrollWidth - innerWidth,
    broken: [...document.images].filter(image => !image.complete || !image.naturalWidth).length,
    images: document.images.length,
    dark: [...document.images].filter(image => image.currentSrc != image.src).length,
    paper: getComputedStyle(document.body).backgroundColor,
    links: document.links.length,
    lost: [...document.links].filter(link => !document.getElementById(link.hash.slice(1))).length,
})"""


def find() -> str | None:
    """A Chromium's path, if one is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One tab; answers and events are JSON messages that end in a zero byte (Chromium's --remote-debugging-pipe)."""

    def __init__(self, process: "subprocess.Popen[bytes]", to: int, back: int) -> None:
        self.process, self.to, self.back = process, to, back
        self.number, self.left, self.session = 0, b"", None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in DOMAINS:
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command's answer."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def open(self, page: Path, width: int, height: int = 900, dark: bool = False, phone: bool = False) -> list[str]:
        """Loads a file in a window of that size; returns what went wrong: one line each, none if all is well."""
        self.events.clear()
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        self.evaluate("new Promise(done => setTimeout(done, 100))")  # events that follow the load
        return [problem for event in self.events if (problem := _problem(event, page))]

    def evaluate(self, expression: str) -> Any:
        """A JavaScript expression's value on the page."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def _next(self, seconds: float = 60.0) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\0" not in self.left:
            ready = select.select([self.back], [], [], max(0.0, end - time.monotonic()))[0]
            piece = os.read(self.back, 1 << 20) if ready else b""
            assert piece, f"the browser is silent or gone (exit code {self.process.poll()})"
            self.left += piece
        message, _, self.left = self.left.partition(b"\0")
        return json.loads(message)


@contextmanager
def browser(executable: str, profile: Path) -> Iterator[Browser]:
    """Starts a browser with an empty profile folder, and ends it."""
    ours_out, theirs_in = os.pipe()[::-1]
    ours_in, theirs_out = os.pipe()

    def wire() -> None:  # the browser reads commands from descriptor 3 and answers on 4
        spare = [os.dup(each) for each in (theirs_in, theirs_out)]  # else one dup2 might close the other's source
        os.dup2(spare[0], 3)
        os.dup2(spare[1], 4)

    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
    flags += [f"--user-data-dir={profile}", "--disable-background-networking", "--disable-dev-shm-usage"]
    process = subprocess.Popen(
        [executable, *flags], preexec_fn=wire, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Browser(process, ours_out, ours_in)
    finally:
        process.kill()
        process.wait()
        os.close(ours_out)
        os.close(ours_in)


def _problem(event: dict[str, Any], page: Path) -> str | None:
    """What an event says is wrong, if anything."""
    method, given = event.get("method"), event.get("params", {})
    if method == "Runtime.exceptionThrown":
        return f"exception: {given['exceptionDetails']['text']}"
    if method == "Runtime.consoleAPICalled":
        return f"console.{given['type']}: {[each.get('value') for each in given['args']]}"
    if method == "Log.entryAdded":
        return f"{given['entry']['level']}: {given['entry']['text']}"
    if method == "Network.requestWillBeSent" and not given["request"]["url"].startswith("data:"):
        url = given["request"]["url"]
        return None if url == page.as_uri() else f"request: {url}"
    return None
