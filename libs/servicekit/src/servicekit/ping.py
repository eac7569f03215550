"""The health check of a container: `python -m servicekit.ping unix:/PATH|HOST:PORT|http://HOST:PORT/PATH`.

Asks for liveness only, of the service's own event loop: its gRPC health, or a page over HTTP. It runs every
few seconds in every container, so it is the standard library alone: gRPC's own client takes twenty times as
long to load.
"""

import http.client
import socket
import sys
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

_WITHIN_S: Final = 5.0
_MOST_BYTES: Final = 64 * 1024
# HTTP/2 by hand (RFC 9113, section 4): the preface, empty SETTINGS, then one request on stream 1. Headers are
# literals without indexing (RFC 7541, section 6.2.2); the message is an empty HealthCheckRequest.
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _GOAWAY = 0x0, 0x1, 0x4, 0x7
_END_STREAM, _END_HEADERS = 0x1, 0x4
_REQUEST: Final = {
    ":method": "POST",
    ":scheme": "http",
    ":path": "/grpc.health.v1.Health/Check",
    ":authority": "localhost",
    "content-type": "application/grpc",
    "te": "trailers",
}
_EMPTY_MESSAGE: Final = bytes(5)
# HealthCheckResponse{status: SERVING} as a message of gRPC: flag, length, field 1, varint 1.
_SERVING: Final = b"\x00\x00\x00\x00\x02\x08\x01"


class NotAliveError(Exception):
    """The service did not answer, or not as a living one does."""


def ping(target: str, timeout_s: float = _WITHIN_S) -> None:
    """Return if the service at `target` is alive.

    Raises:
        NotAliveError: It is not.
    """
    try:
        if target.startswith("http://"):
            _ask_http(target, timeout_s)
        else:
            _ask_grpc(target, timeout_s)
    except (OSError, http.client.HTTPException) as exc:
        raise NotAliveError(f"{target}: {exc}") from exc


def _ask_http(url: str, timeout_s: float) -> None:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        connection.request("GET", parts.path)
        status = connection.getresponse().status
    finally:
        connection.close()
    if status != http.HTTPStatus.OK:
        raise NotAliveError(f"{url} answers {status}")


def _ask_grpc(target: str, timeout_s: float) -> None:
    headers = b"".join(_literal(name) for name in _REQUEST.items())
    with _connected(target, timeout_s) as sock:
        sock.sendall(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, b"")
            + _frame(_HEADERS, _END_HEADERS, 1, headers)
            + _frame(_DATA, _END_STREAM, 1, _EMPTY_MESSAGE)
        )
        received = b""
        while len(received) < _MOST_BYTES:
            chunk = sock.recv(4096)
            if not chunk:
                break
            received += chunk
            for kind, flags, stream, payload in _frames(received):
                if kind == _DATA and stream == 1 and payload:
                    if payload != _SERVING:
                        raise NotAliveError(f"{target} is not serving")
                    return
                if kind == _GOAWAY or (kind == _HEADERS and flags & _END_STREAM):
                    raise NotAliveError(f"{target} refuses to tell its health")
    raise NotAliveError(f"{target} hung up")


def _connected(target: str, timeout_s: float) -> socket.socket:
    if target.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(timeout_s)
        try:
            sock.connect(target.removeprefix("unix:"))
        except OSError:
            sock.close()
            raise
        return sock
    host, _, port = target.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=timeout_s)


def _literal(header: tuple[str, str]) -> bytes:
    name, value = (text.encode("ascii") for text in header)
    # Lengths below 127 are one octet.
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _frames(received: bytes) -> list[tuple[int, int, int, bytes]]:
    """Return type, flags, stream and payload of every whole frame."""
    found, at = [], 0
    while len(received) - at >= 9:
        length = int.from_bytes(received[at : at + 3], "big")
        if len(received) - at - 9 < length:
            break
        stream = int.from_bytes(received[at + 5 : at + 9], "big") & 0x7FFFFFFF
        payload = received[at + 9 : at + 9 + length]
        found.append((received[at + 3], received[at + 4], stream, payload))
        at += 9 + length
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Ping the one target of the command line; 0 if it is alive, 1 with the fault on stderr."""
    words = sys.argv[1:] if arguments is None else arguments
    if len(words) != 1:
        sys.stderr.write("usage: python -m servicekit.ping unix:/PATH|HOST:PORT|http://HOST:PORT/PATH\n")
        return 2
    try:
        ping(words[0])
    except NotAliveError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
