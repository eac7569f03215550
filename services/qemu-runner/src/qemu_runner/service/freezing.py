"""Filesystems of guests that stand still for a moment, and never longer than was asked for.

A frozen guest whose caller has crashed would hang for ever. So each freeze has its time; when it is over, the
guest is thawed by a task that does not give up while the machine runs. A runner that starts, or an agent that
comes back, thaws what it finds frozen: nobody is left who would.
"""

import asyncio
import contextlib
import logging
from datetime import UTC, datetime, timedelta
from typing import Final

from qemu_runner.domain.machine import MachineId
from qemu_runner.errors import (
    GuestAgentRefusedError,
    GuestAgentUnavailableError,
    GuestError,
    SpecFault,
    SpecInvalidError,
)
from qemu_runner.guest_agent.client import GuestAgent
from qemu_runner.service.guest import Guests, bounded
from qemu_runner.service.live import Frozen, Live
from qemu_runner.service.tasks import Tasks

_LOG = logging.getLogger(__name__)
_MAX_S: Final = 300.0
# The guest has to write out what it holds.
_FREEZE_S: Final = 60.0
_THAW_S: Final = 30.0
_AGAIN_S: Final = 2.0


class Freezing:
    """Freezes and thaws.

    Args:
        guests: The guests.
        tasks: Owner of what thaws in time.
    """

    def __init__(self, guests: Guests, tasks: Tasks) -> None:
        self._guests = guests
        self._tasks = tasks

    async def freeze(self, machine_id: MachineId, timeout_s: float) -> Frozen:
        """Have the guest write out its filesystems and hold them; repeated, it lasts from now on.

        Raises:
            SpecInvalidError: The time is out of bounds.
            MachineNotFoundError, MachineStateError, GuestError: As of `Guests.reach`, or the guest refuses.
        """
        if not 0 < timeout_s <= _MAX_S:
            raise SpecInvalidError((SpecFault("/timeout", f"must be above 0 and at most {_MAX_S:g}s."),))
        machine, agent = self._guests.reach(machine_id)
        live = machine.live
        if live is None:
            raise GuestAgentUnavailableError("the guest has just gone")
        before = live.frozen
        # Noted before it is done: whatever becomes of this call, it is thawed.
        live.frozen = Frozen(
            datetime.now(UTC) + timedelta(seconds=timeout_s), before.filesystems if before is not None else 0
        )
        self._tasks.begin(self._thaw_in_time(live, timeout_s), name=f"thaw {machine_id}")
        if before is None:
            try:
                async with bounded(_FREEZE_S):
                    count = await agent.call("guest-fsfreeze-freeze", deadline_s=_FREEZE_S)
            except BaseException:
                # Whether it was done is not known.
                with contextlib.suppress(GuestError):
                    await thaw(live, agent)
                raise
            frozen = live.frozen = Frozen(live.frozen.until, _counted(count))
            if not frozen.filesystems and await agent.ask("guest-fsfreeze-status") != "frozen":
                # None of them can stand still (FAT, in memory): the agent goes on, and so does all else.
                _let_go(live)
            return frozen
        return live.frozen

    async def thaw(self, machine_id: MachineId) -> int:
        """Let the filesystems go on; return how many. Of a guest that is not frozen, none.

        Raises:
            MachineNotFoundError, MachineStateError, GuestError: As of `Guests.reach`, or the guest refuses.
        """
        machine, agent = self._guests.reach(machine_id)
        if machine.live is None:
            raise GuestAgentUnavailableError("the guest has just gone")
        return await thaw(machine.live, agent)

    async def _thaw_in_time(self, live: Live, timeout_s: float) -> None:
        await asyncio.sleep(timeout_s)
        while live.frozen is not None and live.frozen.until <= datetime.now(UTC) and not live.ended:
            agent = live.guest
            try:
                if agent is not None:
                    _LOG.warning("a frozen guest is thawed: its time is over")
                    await thaw(live, agent)
                    return
            except GuestError as exc:
                _LOG.warning("a frozen guest cannot be thawed yet", extra={"error": str(exc)})
            # Paused, or its agent is away; it answers when it answers.
            await asyncio.sleep(_AGAIN_S)


async def thaw(live: Live, agent: GuestAgent) -> int:
    """Thaw a guest and note it.

    Raises:
        GuestError: It refuses, or does not answer.
    """
    async with bounded(_THAW_S):
        try:
            count = await agent.call("guest-fsfreeze-thaw", deadline_s=_THAW_S)
        except GuestAgentRefusedError:
            if await agent.ask("guest-fsfreeze-status") != "frozen":
                _let_go(live)
            raise
    _let_go(live)
    return _counted(count)


def _let_go(live: Live) -> None:
    live.frozen = None
    # A frozen agent was asked nothing, and did not get the time where the guest was paused meanwhile.
    live.thawed()


def _counted(count: object) -> int:
    return count if isinstance(count, int) and 0 <= count < 2**31 else 0
