"""A headless Chromium, driven by its DevTools protocol.

Source: the Chrome DevTools Protocol (Page, Runtime, Input, Log).
"""

import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Final, Self

from websockets.sync.client import connect

from framework.stack import eventually

_WITHIN_S: Final = 120.0
_PORT_FILE: Final = "DevToolsActivePort"


def program() -> str | None:
    """Return Chromium's path, if it is installed."""
    return shutil.which("chromium")


class Browser:
    """One page of a browser of its own; a context manager."""

    def __init__(self) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="qc-browser-", ignore_cleanup_errors=True)
        self._numbers = itertools.count(1)
        self.told: list[dict[str, Any]] = []
        """Events so far: what the page logged, and what the policy of its content kept from it."""

    def __enter__(self) -> Self:
        profile = Path(self._profile.name)
        argv = [
            *(str(program()), "--headless=new", "--disable-gpu", "--remote-debugging-port=0"),
            *("--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage"),
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
            *(f"--user-data-dir={profile}", "about:blank"),
        ]
        with (profile / "log").open("wb") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            port = eventually(lambda: _port(profile), "the browser listens", _WITHIN_S)
            target = eventually(lambda: _page_target(port), "the browser has a page", _WITHIN_S)
            self._connecting = connect(target, max_size=None)
            self._socket = self._connecting.__enter__()
            for domain in ("Page", "Runtime", "Log"):
                self.call(f"{domain}.enable")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._connecting.__exit__(None, None, None)
        self._end()

    def _end(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)
        self._profile.cleanup()

    def call(self, method: str, **parameters: Any) -> Any:
        """Return the result of one command."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        until = time.monotonic() + _WITHIN_S
        while True:
            message = json.loads(self._socket.recv(timeout=max(0.0, until - time.monotonic())))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self.told.append(message)

    def open(self, url: str) -> None:
        """Go to a page."""
        self.call("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:
        """Wait until a JavaScript expression is true; return it."""
        return eventually(lambda: self.value(expression), expression, _WITHIN_S)

    def type(self, text: str) -> None:
        """Type text, and Enter for each line's end."""
        for line in text.splitlines(keepends=True):
            if line.strip("\n"):
                self.call("Input.insertText", text=line.strip("\n"))
            if line.endswith("\n"):
                key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
                self.call("Input.dispatchKeyEvent", type="keyDown", **key)
                self.call("Input.dispatchKeyEvent", type="keyUp", **key)

    def complaints(self) -> list[str]:
        """Return what the page or the browser logged as errors."""
        self.value("0")
        return [
            json.dumps(event["params"])
            for event in self.told
            if event.get("method") == "Runtime.exceptionThrown"
            or (event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error")
        ]


def _port(profile: Path) -> int | None:
    file = profile / _PORT_FILE
    lines = file.read_text().split() if file.exists() else []
    return int(lines[0]) if lines else None


def _page_target(port: int) -> str | None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
        targets = json.load(answer)
    return next((one["webSocketDebuggerUrl"] for one in targets if one["type"] == "page"), None)
