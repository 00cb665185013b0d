"""Headless Chromium, driven through its DevTools protocol: opens pages, takes pictures, tells of faults."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tornado.websocket import WebSocketClientConnection, websocket_connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"),
    *("--hide-scrollbars", "--remote-debugging-port=0", "--force-color-profile=srgb"),
)
SECONDS = 60
SETTLED = """new Promise(done => {
  const images = Array.from(document.images);
  images.forEach(image => { image.loading = "eager"; });
  const decoded = Promise.allSettled(images.map(image => image.decode()));
  decoded.then(() => requestAnimationFrame(() => setTimeout(done, 50)));
})"""


def find_program() -> str | None:
    """The browser's program, None if there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class Page:
    """A tab. ``problems`` are what the console says since a page was opened: messages, failed requests …"""

    loop: asyncio.AbstractEventLoop
    socket: WebSocketClientConnection
    problems: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    loaded: bool = False

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol; AssertionError with the browser's words if it fails."""
        return self.loop.run_until_complete(asyncio.wait_for(self._call(method, parameters), SECONDS))

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        number = next(self.numbers)
        await self.socket.write_message(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = await self._message()
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])

    async def _message(self) -> dict[str, Any]:
        text = await self.socket.read_message()
        assert text is not None, "the browser has closed the connection"
        message = json.loads(text)
        self._note(message.get("method", ""), message.get("params", {}))
        return dict(message)

    def _note(self, event: str, report: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self.loaded = True
        elif event == "Network.requestWillBeSent":
            self.requested.append(report["request"]["url"])
        elif event == "Log.entryAdded" and report["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{report['entry']['text']} {report['entry'].get('url', '')}")
        elif event == "Runtime.consoleAPICalled" and report["type"] in ("error", "warning", "assert"):
            self.problems.append(json.dumps(report["args"]))
        elif event == "Runtime.exceptionThrown":
            self.problems.append(report["exceptionDetails"]["text"])

    def open(self, url: str) -> None:
        """Go to an address and wait until all of it is there."""
        self.problems.clear()
        self.requested.clear()
        self._until_loaded(lambda: self.call("Page.navigate", url=url))

    def submit(self, script: str) -> None:
        """Run a script that leads to another page, and wait for that."""
        self._until_loaded(lambda: self.evaluate(script))

    def _until_loaded(self, action: Any) -> None:
        self.loaded = False
        action()
        self.loop.run_until_complete(asyncio.wait_for(self._wait(), SECONDS))
        self.evaluate(SETTLED)

    async def _wait(self) -> None:
        while not self.loaded:
            await self._message()

    def evaluate(self, script: str) -> Any:
        """The value of a script."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def looks(self, width: int = 1280, scheme: str = "light") -> None:
        """How wide the window is, and whether the user wants it light or dark."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, path: Path) -> Path:
        """The whole page as a PNG file."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 8000), "scale": 1}
        taken = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(taken["data"]))
        return path


@contextmanager
def browser(program: str) -> Iterator[Page]:
    """A browser with one tab."""
    with tempfile.TemporaryDirectory(prefix="odc-openeo-browser-", ignore_cleanup_errors=True) as profile:
        command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        ) as process:
            try:
                yield from _tab(process)
            finally:
                process.terminate()
                process.wait(SECONDS)


def _tab(process: subprocess.Popen[str]) -> Iterator[Page]:
    assert process.stderr is not None
    lines = (re.search(r"ws://[^/]+:(\d+)/", line) for line in process.stderr)
    port = next(match[1] for match in lines if match)
    loop = asyncio.new_event_loop()
    socket = None
    try:
        address = loop.run_until_complete(_address(port))
        socket = loop.run_until_complete(_connect(address))
        page = Page(loop, socket)
        for domain in ("Page", "Network", "Log", "Runtime"):
            page.call(f"{domain}.enable")
        page.looks()
        yield page
    finally:
        if socket is not None:
            socket.close()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


async def _connect(address: str) -> WebSocketClientConnection:
    return await websocket_connect(address, max_message_size=2**28)


async def _address(port: str) -> str:
    from tornado.httpclient import AsyncHTTPClient

    client = AsyncHTTPClient(force_instance=True)
    answer = await client.fetch(f"http://127.0.0.1:{port}/json/list")
    client.close()
    return str(next(t["webSocketDebuggerUrl"] for t in json.loads(answer.body) if t["type"] == "page"))
