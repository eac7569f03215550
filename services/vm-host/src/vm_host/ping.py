"""The health check: whether a vm-host answers hello at a socket. It asks for liveness only."""

import json
import socket
from pathlib import Path
from typing import Any

from vm_host import protocol
from vm_host.errors import NotAnsweringError


def ping(socket_path: Path, timeout_s: float = 5.0) -> dict[str, Any]:
    """Return the hello of the vm-host at this socket.

    Raises:
        NotAnsweringError: There is none in time.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(timeout_s)
            sock.connect(str(socket_path))
            sock.send(protocol.encode({"id": 1, "op": "hello", "versions": list(protocol.VERSIONS)}))
            answer = json.loads(sock.recv(protocol.MAX_MESSAGE_BYTES))
            hello: dict[str, Any] = answer["result"]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise NotAnsweringError(socket_path, f"no hello: {exc!r}") from exc
    return hello
