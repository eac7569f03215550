"""Translation between the runner's values and the JSON of the vm-host protocol.

The only module of the runner that knows the wire's words (docs/vm-host-protocol.md). It performs no
I/O and trusts no answer: whatever does not have the documented form is ``AnswerInvalid``.
"""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from qemu_runner.adapters.vm_host.errors import RefusalCode, VmHostError, VmHostMessageTooLarge, VmHostRefused
from qemu_runner.adapters.vm_host.messages import (
    AcceleratorOffer,
    ChildExit,
    ChildHandle,
    ChildRecord,
    ChildRole,
    ExitReason,
    QemuOffer,
    Spawned,
    SpawnRequest,
    Stopping,
    VmHostHello,
    WatchEvent,
)

PROTOCOL_VERSIONS = (1,)
MAX_MESSAGE_BYTES = 64 * 1024
MAX_DESCRIPTORS = 64

_T = TypeVar("_T")


class AnswerInvalid(VmHostError):  # noqa: N818
    """A message from vm-host does not have the form that the protocol gives it."""


def encode(message: Mapping[str, Any]) -> bytes:
    """Return the bytes of one message.

    Raises:
        VmHostMessageTooLarge: They exceed the protocol's limit.
    """
    payload = json.dumps(message, separators=(",", ":")).encode()
    if len(payload) > MAX_MESSAGE_BYTES:
        raise VmHostMessageTooLarge("bytes of one message", len(payload), MAX_MESSAGE_BYTES)
    return payload


def decode(data: bytes) -> dict[str, Any]:
    """Return the JSON object in one message.

    Raises:
        AnswerInvalid: It holds none.
    """
    try:
        message = json.loads(data)
    except ValueError as exc:
        raise AnswerInvalid(f"not JSON: {exc}") from exc
    if not isinstance(message, dict):
        raise AnswerInvalid("not a JSON object")
    return message


def hello_request() -> dict[str, Any]:
    """Return the body of a hello: the versions that this client speaks."""
    return {"versions": list(PROTOCOL_VERSIONS)}


def spawn_request(request: SpawnRequest) -> tuple[dict[str, Any], list[int]]:
    """Return the body of a spawn and the descriptors that go with it, in the order of ``fds``."""
    names = list(request.fds)
    numbers = [request.fds[name] for name in names]
    if request.stderr_fd is not None:
        names.append("stderr")
        numbers.append(request.stderr_fd)
    body: dict[str, Any] = {
        "handle": encode_handle(request.handle),
        "argv": list(request.argv),
        "fds": names,
    }
    if request.uid is not None:
        body["uid"] = request.uid
    if request.gid is not None:
        body["gid"] = request.gid
    if request.groups:
        body["groups"] = list(request.groups)
    if request.tmp_dir is not None:
        body["env"] = {"TMPDIR": request.tmp_dir}
    if request.cwd is not None:
        body["cwd"] = request.cwd
    return body, numbers


def encode_handle(handle: ChildHandle) -> dict[str, Any]:
    """Return a handle as it travels."""
    return {"machineId": handle.machine_id, "role": handle.role.value, "incarnation": handle.incarnation}


def parse_result(operation: str, message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result in an answer.

    Raises:
        VmHostRefused: The answer is an error.
        AnswerInvalid: It is neither.
    """
    error = message.get("error")
    if isinstance(error, dict):
        code = str(error.get("code", ""))
        known = RefusalCode(code) if code in RefusalCode.__members__ else RefusalCode.UNRECOGNISED
        raise VmHostRefused(operation, known, str(error.get("message", code)))
    result = message.get("result")
    if not isinstance(result, dict):
        raise AnswerInvalid(f"the answer to {operation} has neither result nor error")
    return result


def parse_hello(result: Mapping[str, Any]) -> VmHostHello:
    """Return the introduction in an answer to hello."""
    if result.get("version") not in PROTOCOL_VERSIONS:
        raise AnswerInvalid(f"version {result.get('version')!r} chosen")
    return _parse("hello", _hello, result)


def parse_spawned(result: Mapping[str, Any]) -> Spawned:
    """Return the answer to a spawn."""
    return _parse("spawn", lambda r: Spawned(_record(r["child"]), bool(r["created"])), result)


def parse_page(result: Mapping[str, Any]) -> tuple[list[ChildRecord], str | None]:
    """Return one page of a list and the cursor of the next one (None: it was the last)."""
    return _parse("list", lambda r: ([_record(c) for c in r["children"]], r.get("next")), result)


def parse_event(message: Mapping[str, Any]) -> WatchEvent:
    """Return the event that vm-host announced."""

    def event(m: Mapping[str, Any]) -> WatchEvent:
        if m["event"] == "stopping":
            return Stopping(m["startId"])
        if m["event"] == "exit":
            record = _record(m["child"])
            if record.exit is not None:
                return record.exit
        raise ValueError(f"event {m['event']!r}")

    return _parse("event", event, message)


def parse_stop_record(data: bytes) -> tuple[str, tuple[ChildExit, ...]]:
    """Return start id and exits of the record that a vm-host leaves when it stopped in good order."""

    def record(m: Mapping[str, Any]) -> tuple[str, tuple[ChildExit, ...]]:
        ended = [_record(child).exit for child in m["children"]]
        return m["startId"], tuple(end for end in ended if end is not None)

    return _parse("stop record", record, decode(data))


def _parse(what: str, parser: Callable[[Mapping[str, Any]], _T], message: Mapping[str, Any]) -> _T:
    try:
        return parser(message)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise AnswerInvalid(f"{what} malformed: {exc!r}") from exc


def _hello(m: Mapping[str, Any]) -> VmHostHello:
    return VmHostHello(
        generation=m["generation"],
        start_id=m["startId"],
        boot_id=m["bootId"],
        pid=int(m["pid"]),
        root=bool(m["root"]),
        bounding_set_empty=bool(m["boundingSetEmpty"]),
        stopping=bool(m["stopping"]),
        qemu=tuple(_qemu(offer) for offer in m["qemu"]),
    )


def _qemu(m: Mapping[str, Any]) -> QemuOffer:
    return QemuOffer(
        arch=m["arch"],
        program=m["program"],
        version=m["version"],
        machine_types=tuple(m["machineTypes"]),
        machine_aliases=dict(m["machineAliases"]),
        accelerators=tuple(
            AcceleratorOffer(a["name"], bool(a["usable"]), a["reason"]) for a in m["accelerators"]
        ),
        error=m["error"],
        missing_firmware=tuple(m.get("missingFirmware", ())),
    )


def _record(m: Mapping[str, Any]) -> ChildRecord:
    handle = ChildHandle(
        machine_id=m["handle"]["machineId"],
        role=ChildRole(m["handle"]["role"]),
        incarnation=int(m["handle"]["incarnation"]),
    )
    started_at = datetime.fromisoformat(m["startTime"])
    ended = m.get("exit")
    return ChildRecord(
        handle=handle,
        pid=int(m["pid"]),
        started_at=started_at,
        exit=None
        if ended is None
        else ChildExit(
            handle=handle,
            code=ended.get("code"),
            signal=ended.get("signal"),
            reason=ExitReason(ended["reason"]),
            started_at=started_at,
            ended_at=datetime.fromisoformat(ended["endTime"]),
        ),
    )
