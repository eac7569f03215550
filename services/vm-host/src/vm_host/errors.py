"""Errors of vm-host.

Exception tree::

    VmHostError
    ├── SettingsInvalidError   the configuration cannot be used; the process does not start
    ├── SocketInUseError       another vm-host serves this socket; the process does not start
    ├── NotAnsweringError      a ping got no hello
    └── RefusedError           a request is answered with an error; nothing was changed

``Refusal`` lists the codes that clients see (docs/vm-host-protocol.md).
"""

from enum import StrEnum
from pathlib import Path


class Refusal(StrEnum):
    """Why a request is refused."""

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


class VmHostError(Exception):
    """vm-host cannot do what was asked."""


class SettingsInvalidError(VmHostError):
    """The configuration cannot be used."""

    def __init__(self, source: str, fault: str) -> None:
        super().__init__(f"{source}: {fault}")
        self.source = source
        self.fault = fault


class SocketInUseError(VmHostError):
    """Another process holds the lock of this socket."""

    def __init__(self, socket_path: Path) -> None:
        super().__init__(f"{socket_path}: another vm-host serves this socket")
        self.socket_path = socket_path


class NotAnsweringError(VmHostError):
    """Nobody said hello at this socket."""

    def __init__(self, socket_path: Path, fault: str) -> None:
        super().__init__(f"{socket_path}: {fault}")
        self.socket_path = socket_path
        self.fault = fault


class RefusedError(VmHostError):
    """A request cannot be granted; the client is told ``code`` and ``message``."""

    def __init__(self, code: Refusal, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
