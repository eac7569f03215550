"""A REST client that prints each call as the curl command that repeats it."""

import http.client
import json
import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_CHUNK_BYTES: Final = 256 * 1024
_TIMEOUT_S: Final = 300.0


class CallError(Exception):
    """The gateway refused a call; the message is the problem's detail and reason."""

    def __init__(self, message: str, reason: str = "") -> None:
        self.reason = reason
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response whose body is JSON, or empty."""

    status: int
    headers: dict[str, str]
    body: Any


class RestClient:
    """Calls one gateway; `show` gets the curl line of every call before it is made."""

    def __init__(self, port: int, show: Callable[[str], None]) -> None:
        """Talk to 127.0.0.1:`port`."""
        self._port = port
        self._show = show

    def call(
        self, method: str, path: str, body: object = None, *, wait_s: int | None = None, quiet: bool = False
    ) -> Answer:
        """Make one call; `wait_s` asks the gateway to answer only when the operation has finished.

        Raises:
            CallError: The answer is a problem.
        """
        headers = {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if wait_s is not None:
            headers["Prefer"] = f"wait={wait_s}"
        payload = None if body is None else json.dumps(body)
        if not quiet:
            self._show(self._curl(method, path, headers, payload))
        connection = self._connect()
        try:
            connection.request(method, path, payload, headers)
            return _answer(connection.getresponse())
        finally:
            connection.close()

    def upload(self, path: str, file: Path, progress: Callable[[int, int], None]) -> Answer:
        """PUT `file` as a raw body; `progress` gets the bytes sent and their total.

        Raises:
            CallError: The answer is a problem.
        """
        total = file.stat().st_size
        self._show(f"curl -T {shlex.quote(os.fspath(file))} http://127.0.0.1:{self._port}{path}")
        connection = self._connect()
        try:
            connection.putrequest("PUT", path)
            connection.putheader("Content-Length", str(total))
            connection.putheader("Content-Type", "application/octet-stream")
            connection.endheaders()
            sent = 0
            with file.open("rb") as source:
                while chunk := source.read(_CHUNK_BYTES):
                    connection.send(chunk)
                    sent += len(chunk)
                    progress(sent, total)
            return _answer(connection.getresponse())
        finally:
            connection.close()

    def events(self) -> "EventStream":
        """Open the event stream; only what happens from now on is in it."""
        self._show(f"curl -N http://127.0.0.1:{self._port}/v1/events")
        connection = self._connect()
        connection.request("GET", "/v1/events", headers={"Accept": "text/event-stream"})
        response = connection.getresponse()
        if response.status != http.HTTPStatus.OK:
            _answer(response)
        return EventStream(connection, response)

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_S)

    def _curl(self, method: str, path: str, headers: dict[str, str], payload: str | None) -> str:
        words = ["curl"] if method == "GET" else ["curl", "-X", method]
        for name, value in headers.items():
            words += ["-H", f"{name}: {value}"]
        if payload is not None:
            words += ["-d", payload]
        return shlex.join([*words, f"http://127.0.0.1:{self._port}{path}"])


class EventStream:
    """Server-sent events (WHATWG HTML, section 9.2) as the decoded `data` of each."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        """Own `connection` until `close`."""
        self._connection = connection
        self._response = response

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield events until the server closes the stream, and {} for each heartbeat."""
        data: list[str] = []
        while line := self._response.readline().decode():
            text = line.rstrip("\r\n")
            if text.startswith("data:"):
                data.append(text.removeprefix("data:").lstrip())
            elif text.startswith(":"):
                yield {}
            elif not text and data:
                yield json.loads("\n".join(data))
                data = []

    def close(self) -> None:
        """Hang up."""
        self._response.close()
        self._connection.close()


def _answer(response: http.client.HTTPResponse) -> Answer:
    raw = response.read()
    body = (
        json.loads(raw)
        if raw and "json" in response.headers.get_content_type()
        else raw.decode(errors="replace")
    )
    if response.status >= http.HTTPStatus.BAD_REQUEST:
        detail = body.get("detail", body) if isinstance(body, dict) else body
        reason = body.get("reason", "") if isinstance(body, dict) else ""
        raise CallError(f"{response.status} {reason}: {detail}", reason)
    return Answer(response.status, {name.lower(): value for name, value in response.headers.items()}, body)
