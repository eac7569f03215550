"""What the vm-host client makes of answers that do not keep to the protocol."""

from typing import Any

import pytest
from qemu_runner.adapters.vm_host import RefusalCode, Stopping, VmHostRefused, codec
from vm_host.errors import Refusal

CHILD: dict[str, Any] = {
    "handle": {"machineId": "m", "role": "qemu", "incarnation": 1},
    "pid": 5,
    "startTime": "2026-01-01T00:00:00.000+00:00",
}


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"1", b'{"id": 1'])
def test_what_is_not_an_object_is_invalid(data: bytes) -> None:
    with pytest.raises(codec.AnswerInvalid):
        codec.decode(data)


@pytest.mark.parametrize(
    "event",
    [
        {"event": "earthquake"},
        {"event": "stopping"},
        {"event": "exit", "child": CHILD},
        {"event": "exit", "child": {**CHILD, "exit": {"reason": "BORED", "endTime": CHILD["startTime"]}}},
        {"event": "exit", "child": {**CHILD, "startTime": "yesterday"}},
    ],
)
def test_a_malformed_event_is_invalid(event: dict[str, Any]) -> None:
    with pytest.raises(codec.AnswerInvalid):
        codec.parse_event(event)


def test_an_unknown_field_of_an_answer_is_ignored() -> None:
    assert codec.parse_event({"event": "stopping", "startId": "s", "news": 1}) == Stopping("s")


def test_an_unknown_code_is_a_refusal_all_the_same() -> None:
    with pytest.raises(VmHostRefused) as refused:
        codec.parse_result("spawn", {"id": 1, "error": {"code": "MOON_PHASE", "message": "no"}})
    assert (refused.value.code, refused.value.message) == (RefusalCode.UNRECOGNISED, "no")


def test_every_code_of_vm_host_is_known_here() -> None:
    assert {code.value for code in Refusal} == set(RefusalCode) - {RefusalCode.UNRECOGNISED}


def test_another_version_chosen_is_invalid() -> None:
    with pytest.raises(codec.AnswerInvalid, match="version 2"):
        codec.parse_hello({"version": 2})
