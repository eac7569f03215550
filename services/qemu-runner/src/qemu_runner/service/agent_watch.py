"""Keeps the way to one guest's agent: opened when the guest opens its port, closed when it closes it."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from qemu_runner.domain.observation import AgentState, GuestInfo
from qemu_runner.errors import DiskFullError, GuestAgentRefusedError, GuestAgentUnavailableError, GuestError
from qemu_runner.guest_agent import leftovers
from qemu_runner.guest_agent.client import GuestAgent
from qemu_runner.service.freezing import thaw
from qemu_runner.service.live import Live
from qemu_runner.service.power import WAITING
from qemu_runner.store.guest_ledger import GuestLedger

_LOG = logging.getLogger(__name__)
_RETRY_S: Final = 1.0
_SET_CLOCK_S: Final = 15.0
_ADDRESS_FIRST_S: Final = 0.25
_ADDRESS_MOST_S: Final = 5.0
_ADDRESS_WITHIN_S: Final = 120.0


class AgentWatch:
    """The agent of one running machine.

    Args:
        path: The agent channel's socket.
        ledger: Where is written down what of ours lies in the guest.
        live: Where what is seen is put.
        macs: The machine's NICs, whose addresses are waited for.
        changed: Called when something else is seen.
        answered: Awaited when the agent answers for the first time after its port was opened.
    """

    def __init__(
        self,
        path: Path,
        ledger: Path,
        live: Live,
        macs: tuple[str, ...],
        changed: Callable[[], None],
        answered: Callable[[], Awaitable[None]],
    ) -> None:
        self._path = path
        self._ledger = GuestLedger(ledger, self._left_behind)
        self._live = live
        live.thawed = self.ask_again
        self._macs = frozenset(mac.lower() for mac in macs)
        self._changed = changed
        self._answered = answered
        self._opened = asyncio.Event()
        self._closed = asyncio.Event()
        self._ask_again = asyncio.Event()
        self._connected = asyncio.Event()
        self._clock_is_late = False

    def port_changed(self, *, is_open: bool) -> None:
        """Take QEMU's word for whether the guest has the port open."""
        (self._opened if is_open else self._closed).set()
        (self._closed if is_open else self._opened).clear()

    def ask_again(self) -> None:
        """Ask the agent once more who the guest is: something changed in it."""
        self._ask_again.set()

    def resumed(self) -> None:
        """Set the guest's clock: it has stood still with the guest."""
        self._clock_is_late = True
        self._ask_again.set()

    async def answers(self, *, within_s: float) -> bool:
        """Tell whether the agent answers now, or soon where the guest has its port open."""
        if self._closed.is_set():
            return False
        try:
            async with asyncio.timeout(within_s):
                await self._connected.wait()
                guest = self._live.guest
                if guest is not None:
                    await guest.ping()
                return guest is not None
        except (GuestError, TimeoutError):
            return False

    async def run(self) -> None:
        """Follow the port; never returns."""
        while True:
            await self._opened.wait()
            serving = asyncio.create_task(self._serve())
            closing = asyncio.create_task(self._closed.wait())
            try:
                await asyncio.wait({serving, closing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                serving.cancel()
                closing.cancel()
                await asyncio.wait({serving, closing})
                self._disconnected()
            if not serving.cancelled() and (failure := serving.exception()) is not None:
                if not isinstance(failure, GuestError):
                    raise failure
                _LOG.info("guest agent lost", extra={"socket": str(self._path), "error": str(failure)})
                with suppress(TimeoutError):
                    async with asyncio.timeout(_RETRY_S):
                        await self._closed.wait()

    async def _serve(self) -> None:
        guest = await GuestAgent.connect(self._path, self._ledger)
        try:
            await self._first_answer(guest)
            if self._live.frozen is None:
                # Before anybody else has a way to it: the handles of a new life may be those of the last.
                await self._tidy(guest)
            self._live.guest = guest
            self._connected.set()
            self._live.agent = AgentState(True, datetime.now(UTC), self._live.agent.info)
            await self._answered()
            if await guest.ask("guest-fsfreeze-status") == "frozen" and self._live.frozen is None:
                _LOG.warning("a guest is found frozen and thawed", extra={"socket": str(self._path)})
                await thaw(self._live, guest)
            await self._ask(guest)
            await self._ask_for_addresses(guest)
            while True:
                await self._ask_again.wait()
                self._ask_again.clear()
                await self._ask(guest)
        finally:
            await guest.close()

    async def _first_answer(self, guest: GuestAgent) -> None:
        # The port is open before the agent reads from it.
        while True:
            try:
                await guest.ping()
            except GuestError as exc:
                _LOG.debug("guest agent not ready", extra={"socket": str(self._path), "error": str(exc)})
                with suppress(TimeoutError):
                    async with asyncio.timeout(_RETRY_S):
                        await self._closed.wait()
            else:
                return

    async def _ask(self, guest: GuestAgent) -> None:
        if self._live.frozen is not None:
            # A frozen agent refuses to tell anything.
            return
        if self._clock_is_late:
            await self._set_clock(guest)
        await self._tidy(guest)
        self._live.agent = replace(self._live.agent, info=await guest.info())
        self._changed()

    def _left_behind(self) -> None:
        # One that stands still is asked when it goes on.
        if self._live.run_state not in WAITING:
            self._ask_again.set()

    async def _tidy(self, guest: GuestAgent) -> None:
        """Remove what transfers and programs have left in the guest that were cut off."""
        for leftover in await self._ledger.left():
            try:
                await leftovers.close(guest, leftover)
                if leftover.handles:
                    await self._ledger.closed(leftover)
                await leftovers.remove(guest, leftover)
            except GuestAgentUnavailableError:
                raise
            except (GuestError, DiskFullError) as exc:
                _LOG.warning("a leftover stays for now", extra={"path": leftover.path, "error": str(exc)})
            else:
                _LOG.info("a leftover is removed", extra={"path": leftover.path})
                await self._ledger.forget(leftover)

    async def _set_clock(self, guest: GuestAgent) -> None:
        try:
            await guest.call("guest-set-time", {"time": time.time_ns()}, deadline_s=_SET_CLOCK_S)
        except GuestAgentRefusedError as exc:
            # Also said where the clock was set and the guest's hardware clock could not follow.
            _LOG.info("guest's clock", extra={"socket": str(self._path), "error": str(exc)})
        self._clock_is_late = False

    async def _ask_for_addresses(self, guest: GuestAgent) -> None:
        # Agents do not tell of new addresses; they come soon after the agent, or never.
        pause_s = _ADDRESS_FIRST_S
        loop = asyncio.get_running_loop()
        until = loop.time() + _ADDRESS_WITHIN_S
        while not self._macs <= _addressed(self._live.agent.info) and loop.time() < until:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._ask_again.wait()
            self._ask_again.clear()
            pause_s = min(pause_s * 2, _ADDRESS_MOST_S)
            await self._ask(guest)

    def _disconnected(self) -> None:
        self._live.guest = None
        self._connected.clear()
        if self._live.agent.connected:
            self._live.agent = AgentState(False, datetime.now(UTC), self._live.agent.info)
            self._changed()


def _addressed(info: GuestInfo | None) -> frozenset[str]:
    if info is None:
        return frozenset()
    return frozenset(
        interface.mac
        for interface in info.interfaces
        if any(not one.address.startswith(("fe80:", "169.254.")) for one in interface.addresses)
    )
