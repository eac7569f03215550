"""Accounts of guests: what cannot be a user, a password or a key never reaches the guest."""

import base64
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from qemu_runner.domain.machine import MachineId
from qemu_runner.errors import SpecInvalidError
from qemu_runner.service.guest import Guests
from qemu_runner.service.guest_accounts import GuestAccounts
from scripted_agent import agent, client, reply

ID = MachineId("00000000-0000-4000-8000-000000000001")


def unreachable() -> GuestAccounts:
    def reach(_machine_id: MachineId) -> Any:
        raise AssertionError("the guest was asked")

    return GuestAccounts(cast("Guests", SimpleNamespace(reach=reach)))


async def test_password_and_keys_are_sent_as_the_agent_takes_them(tmp_path: Path) -> None:
    sent: list[dict[str, Any]] = []

    async def keep(command: dict[str, Any], writer: Any) -> None:
        sent.append(command)
        reply(writer, {"return": {}})

    async with agent(tmp_path, keep) as path, client(path) as guest:
        accounts = GuestAccounts(cast("Guests", SimpleNamespace(reach=lambda _id: (None, guest))))
        await accounts.set_password(ID, "root", "grüße: x", crypted=False)
        await accounts.authorise_keys(ID, "root", ["ssh-ed25519 A me"], replace=True)
    password, keys = sent
    assert base64.b64decode(password["arguments"]["password"]).decode() == "grüße: x"
    assert keys["arguments"] == {"username": "root", "keys": ["ssh-ed25519 A me"], "reset": True}


@pytest.mark.parametrize(
    ("user", "password"),
    [("", "x"), ("a:b", "x"), ("-x", "x"), ("root", ""), ("root", "a\nroot:b"), ("root", "x" * 1025)],
)
async def test_what_would_be_another_line_is_refused(user: str, password: str) -> None:
    with pytest.raises(SpecInvalidError):
        await unreachable().set_password(ID, user, password, crypted=False)


@pytest.mark.parametrize("keys", [[], ["a\nb"], [""], [" x"], ["x" * 16_385], ["k"] * 101])
async def test_what_is_no_line_of_authorized_keys_is_refused(keys: list[str]) -> None:
    with pytest.raises(SpecInvalidError):
        await unreachable().authorise_keys(ID, "root", keys, replace=False)
