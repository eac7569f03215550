"""The bodies of requests, parsed once into values.

Owns what a field may hold. Unknown fields are refused, never ignored: a client that relies on one must
learn that it has no effect.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

from vm_host.errors import Refusal, RefusedError

STDERR_FD = "stderr"
QMP_FD = "vmhost-qmp"

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_FD_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_MAX_ID = 2**32 - 2  # (uid_t)-1 means "leave as it is" to the kernel
_MAX_INCARNATION = 2**53
_MAX_GROUPS = 32


class Role(StrEnum):
    """What a child is to its machine."""

    QEMU = "qemu"
    PASST = "passt"


@dataclass(frozen=True, slots=True, order=True)
class Handle:
    """Name of a child: one role of one machine in one incarnation."""

    machine_id: str
    role: Role
    incarnation: int

    def describe(self) -> dict[str, Any]:
        """Return it as it travels."""
        return {"machineId": self.machine_id, "role": self.role.value, "incarnation": self.incarnation}


@dataclass(frozen=True, slots=True)
class SpawnRequest:
    """What is to be started; ``fd_names`` are those of the descriptors beside the message, in order."""

    handle: Handle
    argv: tuple[str, ...]
    fd_names: tuple[str, ...]
    uid: int | None
    gid: int | None
    groups: tuple[int, ...]
    tmp_dir: str | None
    cwd: str


def parse_handle(value: object) -> Handle:
    """Return the handle in a JSON value.

    Raises:
        RefusedError: It holds none.
    """
    fields = _fields("handle", value, {"machineId", "role", "incarnation"})
    machine_id = _text("machineId", fields.get("machineId"))
    if not _UUID.fullmatch(machine_id):
        raise _invalid("machineId", "a lower-case UUID with hyphens")
    if fields.get("role") not in tuple(Role):
        raise _invalid("role", " or ".join(Role))
    incarnation = _number("incarnation", fields.get("incarnation"), _MAX_INCARNATION)
    return Handle(machine_id, Role(fields["role"]), incarnation)


def parse_spawn(body: Mapping[str, Any]) -> SpawnRequest:
    """Return the spawn in a request's body.

    Raises:
        RefusedError: A field is missing, unknown or malformed.
    """
    _fields("spawn", body, {"handle", "argv", "fds", "uid", "gid", "groups", "env", "cwd"})
    argv = tuple(_text("argv", argument) for argument in _list("argv", body.get("argv")))
    if not argv:
        raise _invalid("argv", "a list that begins with the program")
    names = tuple(_text("fds", name) for name in _list("fds", body.get("fds", [])))
    if any(not _FD_NAME.fullmatch(name) for name in names) or len(set(names)) < len(names) or QMP_FD in names:
        raise _invalid("fds", f"distinct names of [a-z][a-z0-9-]*, without {QMP_FD}")
    groups = _list("groups", body.get("groups", []))
    if len(groups) > _MAX_GROUPS:
        raise _invalid("groups", f"at most {_MAX_GROUPS} gids")
    env = _fields("env", body.get("env", {}), {"TMPDIR"})
    cwd = _path("cwd", body.get("cwd", "/"))
    if (body.get("uid") is None) is not (body.get("gid") is None):
        raise _invalid("gid", "given exactly if uid is")
    return SpawnRequest(
        handle=parse_handle(body.get("handle")),
        argv=argv,
        fd_names=names,
        uid=None if body.get("uid") is None else _number("uid", body["uid"], _MAX_ID),
        gid=None if body.get("gid") is None else _number("gid", body["gid"], _MAX_ID),
        groups=tuple(_number("groups", group, _MAX_ID) for group in groups),
        tmp_dir=_path("env.TMPDIR", env["TMPDIR"]) if "TMPDIR" in env else None,
        cwd=cwd,
    )


def only_fields(operation: str, body: Mapping[str, Any], *known: str) -> None:
    """Check that a body has no other fields than these.

    Raises:
        RefusedError: It has.
    """
    _fields(operation, body, set(known))


def _invalid(name: str, wanted: str) -> RefusedError:
    return RefusedError(Refusal.FIELD_INVALID, f"{name}: must be {wanted}")


def _fields(name: str, value: object, known: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _invalid(name, "an object")
    unknown = sorted(set(value) - known)
    if unknown:
        raise RefusedError(Refusal.FIELD_INVALID, f"{name}: unknown field {unknown[0]!r}")
    return value


def _list(name: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise _invalid(name, "a list")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or "\0" in value or _lone_surrogate(value):
        raise _invalid(name, "a string without NUL")
    return value


def _lone_surrogate(value: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in value)


def _number(name: str, value: object, highest: int) -> int:
    # 0 is root, or no incarnation: never allowed.
    if type(value) is not int or not 1 <= value <= highest:
        raise _invalid(name, f"an integer of 1 to {highest}")
    return value


def _path(name: str, value: object) -> str:
    path = PurePosixPath(_text(name, value))
    if not path.is_absolute() or ".." in path.parts:
        raise _invalid(name, "an absolute path without '..'")
    return str(path)
