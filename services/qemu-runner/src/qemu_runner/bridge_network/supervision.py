"""Hears what changed on the host and has it mended, while the runner runs.

It owns no host object. What the host refuses is tried again; what an engine is about to do with its
chain, it may finish first.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

from qemu_runner.bridge_network.errors import HostRefusedError, LinkError
from qemu_runner.bridge_network.ports import Change, ChangeReader, Changes

_LOG = logging.getLogger(__name__)
_RETRY_S: Final = 1.0
_ENGINE_SETTLES_S: Final = 0.5


class Supervision:
    """Waits for notices and calls for mending.

    Args:
        changes: The kernel's notices.
        table: Name of our tables.
        mend: Called with what may have changed; takes the network's lock itself.
    """

    def __init__(self, changes: Changes, table: str, mend: Callable[[set[Change]], Awaitable[None]]) -> None:
        self._changes = changes
        self._table = table
        self._mend = mend
        self._begun = asyncio.Event()
        self._reader: ChangeReader | None = None
        self._early: set[Change] = set()
        self._engine_settling = False
        self._engine_due = False

    async def begun(self) -> None:
        """Wait until notices are heard."""
        await self._begun.wait()

    def notice(self, changes: set[Change]) -> None:
        """Add a notice of one's own; before supervision began it is kept until then."""
        if self._reader is not None:
            self._reader.put(changes)
        else:
            self._early |= changes

    async def run(self) -> NoReturn:
        """Hear and have mended, until cancelled."""
        try:
            async with self._changes.watch(self._table) as reader:
                self._reader = reader
                self._begun.set()
                if self._early:
                    reader.put(self._early)
                    self._early = set()
                while True:
                    await self._heed(self._settled(await reader.next()))
        except LinkError as error:
            # Without the capability the network is refused, and there is nothing to keep.
            _LOG.info("bridge network not watched", extra={"error": str(error)})
            await asyncio.get_running_loop().create_future()
            raise AssertionError("a future that nobody sets was done") from error
        finally:
            self._begun.clear()
            self._reader = None

    async def _heed(self, changes: set[Change]) -> None:
        try:
            if changes:
                await self._mend(changes)
        except HostRefusedError as error:
            _LOG.warning("bridge network not mended", extra={"error": str(error)})
            asyncio.get_running_loop().call_later(_RETRY_S, self.notice, changes)

    def _settled(self, changes: set[Change]) -> set[Change]:
        """Put off the engine's chain until its engine had time to finish.

        Whoever flushes a chain to delete it next must not find it filled again in between.
        """
        if Change.ENGINE not in changes:
            return changes
        if self._engine_due:
            self._engine_due = False
            return changes
        if not self._engine_settling:
            self._engine_settling = True
            asyncio.get_running_loop().call_later(_ENGINE_SETTLES_S, self._engine_settled)
        return changes - {Change.ENGINE}

    def _engine_settled(self) -> None:
        self._engine_settling, self._engine_due = False, True
        self.notice({Change.ENGINE})
