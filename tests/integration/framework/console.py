"""Somebody at a serial console, over the gateway's WebSocket; each message must be of the contract."""

import json
import re
import time
import uuid
from typing import Any, Final, Self
from urllib.parse import urlencode, urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from framework.api_client import BlockingApiClient, Contract
from framework.cloud import Document
from framework.subject import Subject

_WITHIN_S: Final = 120.0
_CONTRACT: Final = Contract()


class Console:
    """A viewer; a context manager.

    Args:
        stack: Whose gateway.
        name: The instance.
        url: Path and query; empty: made of `query`.
        origin: Of the page that it pretends to be; empty: none.
    """

    def __init__(self, stack: Subject, name: str, url: str = "", origin: str = "", **query: object) -> None:
        target = url or f"/v1/instances/{name}/console/attach?{urlencode(query)}"
        headers = {"Origin": origin} if origin else None
        base = f"ws://{urlsplit(stack.base_url).netloc}"
        self._connecting = connect(base + target, additional_headers=headers)
        self.output = b""
        self.offset = 0

    def __enter__(self) -> Self:
        self._socket = self._connecting.__enter__()
        return self

    def __exit__(self, *_error: object) -> None:
        self._connecting.__exit__(None, None, None)

    def send(self, **command: Any) -> None:
        """Send a command."""
        self._socket.send(json.dumps(command))

    def type(self, text: str) -> None:
        """Send input."""
        self._socket.send(text.encode())

    def until(self, member: str) -> Any:
        """Return the next message of that kind."""
        until = time.monotonic() + _WITHIN_S
        while member not in (told := self._next(until)):
            pass
        return told[member]

    def until_match(self, pattern: bytes) -> "re.Match[bytes]":
        """Wait until the output so far holds `pattern`."""
        until = time.monotonic() + _WITHIN_S
        while (found := re.search(pattern, self.output)) is None:
            self._next(until)
        return found

    def run(self, command: str) -> bytes:
        """Type a command; return what it printed, and what the guest's kernel did meanwhile."""
        one, two = uuid.uuid4().hex[:8], uuid.uuid4().hex[:8]
        # In the echo of what is typed the marks stand apart.
        self.type(f"echo {one}''{two}; {command}; echo {two}''{one}\n")
        return self.until_match(f"{one}{two}\r\n((?s:.*?)){two}{one}".encode())[1]

    def end(self) -> tuple[Document, int | None, str | None]:
        """Return the last text message, and how the gateway closed."""
        last: Document = {}
        until = time.monotonic() + _WITHIN_S
        try:
            while True:
                last = self._next(until) or last
        except ConnectionClosed as closed:
            if closed.rcvd is None:
                return last, None, None
            return last, closed.rcvd.code, closed.rcvd.reason

    def _next(self, until: float) -> Document:
        message = self._socket.recv(timeout=max(0.0, until - time.monotonic()))
        if isinstance(message, bytes):
            self.output += message
            self.offset += len(message)
            return {}
        document: Document = json.loads(message)
        schema = "Problem" if "reason" in document else "ConsoleMessage"
        _CONTRACT.check_value(document, _CONTRACT.schema(schema), "message")
        if "opened" in document:
            self.offset = document["opened"]["offset"]
        if "gap" in document:
            self.offset = document["gap"]["toOffset"]
        return document


def ticket_url(api: BlockingApiClient, name: str) -> str:
    """Return where a page attaches with a new ticket."""
    response = api.request("POST", f"/v1/instances/{name}/console/tickets")
    assert response.status_code == 201, response.text
    url: str = response.json()["url"]
    return url
