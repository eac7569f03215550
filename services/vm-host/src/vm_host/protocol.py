"""Framing of the protocol: one JSON object a SEQPACKET message, descriptors beside it.

Owns limits, encoding, and the ownership of received descriptors until somebody takes them. It knows no
operation (docs/vm-host-protocol.md).
"""

import array
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vm_host.errors import Refusal, RefusedError

VERSIONS = (1,)
MAX_MESSAGE_BYTES = 64 * 1024
MAX_DESCRIPTORS = 64

_INT_BYTES = array.array("i").itemsize


@dataclass(slots=True)
class Received:
    """One message as it came; whoever holds it closes its descriptors."""

    data: bytes
    fds: list[int] = field(default_factory=list)
    truncated: bool = False
    fds_truncated: bool = False

    def close(self) -> None:
        """Close the descriptors that came with the message; harmless when repeated."""
        while self.fds:
            os.close(self.fds.pop())


def receive(sock: socket.socket) -> Received:
    """Read one message without blocking; empty data means that the peer has ended.

    Raises:
        BlockingIOError: None is there.
        OSError: The connection broke.
    """
    data, ancillary, flags, _address = sock.recvmsg(
        MAX_MESSAGE_BYTES,
        socket.CMSG_SPACE(MAX_DESCRIPTORS * _INT_BYTES),
        # Without this flag a child spawned in between would inherit them.
        socket.MSG_CMSG_CLOEXEC,
    )
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % _INT_BYTES])
    return Received(
        data,
        list(fds),
        truncated=bool(flags & socket.MSG_TRUNC),
        fds_truncated=bool(flags & socket.MSG_CTRUNC),
    )


def decode(received: Received) -> tuple[int, str, dict[str, Any]]:
    """Return id, operation and the other fields of a request.

    Raises:
        RefusedError: It is too large, carries too many descriptors, or is no request.
    """
    if received.truncated:
        raise RefusedError(Refusal.MESSAGE_TOO_LARGE, f"a message holds at most {MAX_MESSAGE_BYTES} bytes")
    try:
        message = json.loads(received.data)
    except (ValueError, RecursionError) as exc:
        raise RefusedError(Refusal.MESSAGE_INVALID, f"not JSON: {exc}") from exc
    if not isinstance(message, dict):
        raise RefusedError(Refusal.MESSAGE_INVALID, "not a JSON object")
    request_id, operation = message.pop("id", None), message.pop("op", None)
    if type(request_id) is not int or not isinstance(operation, str):
        raise RefusedError(Refusal.MESSAGE_INVALID, "a request needs an integer id and an op")
    return request_id, operation, message


def encode(message: Mapping[str, Any]) -> bytes:
    """Return the bytes of one message; the caller keeps it within the limit."""
    payload = json.dumps(message, separators=(",", ":")).encode()
    if len(payload) > MAX_MESSAGE_BYTES:
        raise ValueError(f"message of {len(payload)} bytes")
    return payload


def result(request_id: int, body: Mapping[str, Any]) -> bytes:
    """Return the answer to a request that was granted."""
    return encode({"id": request_id, "result": body})


def error(request_id: int | None, refused: RefusedError) -> bytes:
    """Return the answer to a request that was refused; None where its id could not be read."""
    return encode({"id": request_id, "error": {"code": refused.code, "message": refused.message[:4096]}})
