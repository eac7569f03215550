"""Errors of the vm-host client.

Exception tree::

    VmHostError
    ├── VmHostUnavailable     nobody answers there: not running, hung, or the connection ended
    ├── VmHostIncompatible    somebody answers, but speaks no version of the protocol that we speak
    ├── VmHostMessageTooLarge the request does not fit into one message; nothing was sent
    └── VmHostRefused         vm-host understood the request and said no (``code`` says why)

They say what failed between this process and vm-host. What that means for a machine is decided by
the caller, who translates them once.
"""

from enum import StrEnum
from pathlib import Path


class RefusalCode(StrEnum):
    """Why vm-host said no; the words of docs/vm-host-protocol.md."""

    MESSAGE_INVALID = "MESSAGE_INVALID"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    TOO_MANY_DESCRIPTORS = "TOO_MANY_DESCRIPTORS"
    TOO_MANY_CLIENTS = "TOO_MANY_CLIENTS"
    HELLO_REQUIRED = "HELLO_REQUIRED"
    VERSION_UNSUPPORTED = "VERSION_UNSUPPORTED"
    OPERATION_UNKNOWN = "OPERATION_UNKNOWN"
    FIELD_INVALID = "FIELD_INVALID"
    PROGRAM_NOT_ALLOWED = "PROGRAM_NOT_ALLOWED"
    PROGRAM_UNAVAILABLE = "PROGRAM_UNAVAILABLE"
    PRIVILEGE_UNAVAILABLE = "PRIVILEGE_UNAVAILABLE"
    INCARNATION_CONFLICT = "INCARNATION_CONFLICT"
    HANDLE_UNKNOWN = "HANDLE_UNKNOWN"
    HANDLE_EXITED = "HANDLE_EXITED"
    HANDLE_RUNNING = "HANDLE_RUNNING"
    SPAWN_FAILED = "SPAWN_FAILED"
    STOPPING = "STOPPING"
    UNRECOGNISED = "UNRECOGNISED"  # a code that this client does not know (a newer vm-host)


class VmHostError(Exception):
    """Something between the runner and one vm-host failed."""


class VmHostUnavailable(VmHostError):  # noqa: N818  # the name says what is the case
    """Nobody answers at this socket in time, or the connection ended.

    It proves nothing about the machines: only an exit that vm-host reported, or a new vm-host with
    another start id, does.
    """

    def __init__(self, socket_path: Path, detail: str) -> None:
        super().__init__(f"vm-host at {socket_path}: {detail}")
        self.socket_path = socket_path
        self.detail = detail


class VmHostIncompatible(VmHostError):  # noqa: N818
    """The vm-host there speaks another protocol than this client."""

    def __init__(self, socket_path: Path, detail: str) -> None:
        super().__init__(f"vm-host at {socket_path} is of another protocol: {detail}")
        self.socket_path = socket_path
        self.detail = detail


class VmHostMessageTooLarge(VmHostError):  # noqa: N818
    """A request exceeds the protocol's message or descriptor limit; nothing was sent."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(f"{what}: {size} exceeds the limit of {limit}")
        self.what = what
        self.size = size
        self.limit = limit


class VmHostRefused(VmHostError):  # noqa: N818
    """vm-host understood the request and refused it; nothing was changed."""

    def __init__(self, operation: str, code: RefusalCode, message: str) -> None:
        super().__init__(f"vm-host refused {operation}: {code}: {message}")
        self.operation = operation
        self.code = code
        self.message = message
