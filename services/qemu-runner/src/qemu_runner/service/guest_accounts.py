"""Accounts of guests: passwords and keys. Neither is ever kept or logged here."""

import base64
import re
from collections.abc import Sequence
from typing import Final

from qemu_runner.domain.machine import MachineId
from qemu_runner.errors import SpecFault, SpecInvalidError
from qemu_runner.service.guest import Guests, bounded

_USER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.@-]{0,63}\$?")
_KEY: Final = re.compile(r"[\x21-\x7e][^\x00-\x1f\x7f]*")
_MAX_KEYS: Final = 100
_MAX_KEY: Final = 16_384
_MAX_PASSWORD: Final = 1024
_MOST_S: Final = 30.0


class GuestAccounts:
    """Changes accounts through the agents.

    Args:
        guests: The guests.
    """

    def __init__(self, guests: Guests) -> None:
        self._guests = guests

    async def set_password(self, machine_id: MachineId, user: str, password: str, *, crypted: bool) -> None:
        """Set a user's password; `crypted`: it is the hash that the guest's shadow file is to hold.

        Raises:
            SpecInvalidError: User or password cannot be one.
            MachineNotFoundError, MachineStateError, GuestError: As of `Guests.reach`, or the guest refuses.
        """
        faults = _user_faults(user)
        # What sets it in the guest reads "user:password" in lines.
        if not password or len(password) > _MAX_PASSWORD or not password.isprintable():
            faults.append(SpecFault("/password", "must have 1 to 1024 printable characters."))
        if faults:
            raise SpecInvalidError(tuple(faults))
        _, agent = self._guests.reach(machine_id)
        encoded = base64.b64encode(password.encode()).decode()
        arguments = {"username": user, "password": encoded, "crypted": crypted}
        async with bounded(_MOST_S):
            await agent.call("guest-set-user-password", arguments)

    async def authorise_keys(
        self, machine_id: MachineId, user: str, keys: Sequence[str], *, replace: bool
    ) -> None:
        """Let these SSH keys in as a user, beside those there are or instead of them.

        Raises:
            SpecInvalidError: User or keys cannot be such.
            MachineNotFoundError, MachineStateError, GuestError: As of `Guests.reach`, or the guest refuses.
        """
        faults = _user_faults(user)
        if len(keys) > _MAX_KEYS or not (keys or replace):
            faults.append(SpecFault("/keys", "must be 1 to 100 keys; none only in place of those there are."))
        faults += [
            SpecFault(f"/keys/{index}", "must be one line of printable text, as in authorized_keys.")
            for index, key in enumerate(keys)
            if len(key) > _MAX_KEY or not _KEY.fullmatch(key)
        ]
        if faults:
            raise SpecInvalidError(tuple(faults))
        _, agent = self._guests.reach(machine_id)
        async with bounded(_MOST_S):
            await agent.call(
                "guest-ssh-add-authorized-keys", {"username": user, "keys": list(keys), "reset": replace}
            )


def _user_faults(user: str) -> list[SpecFault]:
    if _USER.fullmatch(user):
        return []
    return [SpecFault("/user", "must be the name of a user.")]
