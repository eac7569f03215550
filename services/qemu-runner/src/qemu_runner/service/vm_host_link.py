"""A lasting link to one vm-host: connects, hears exits, and connects again.

It decides nothing about machines: it tells its listener what happened, in order. A vm-host that cannot be
reached proves nothing.
"""

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from qemu_runner.errors import VmHostUnavailableError
from qemu_runner.ports import (
    ChildExit,
    ChildRecord,
    LastWords,
    Stopping,
    StopRecord,
    VmHostConnection,
    VmHostDoor,
    VmHostError,
    VmHostHello,
)

_LOG = logging.getLogger(__name__)
_RETRY_FIRST_S: Final = 0.05
_RETRY_MOST_S: Final = 1.0


class LinkListener(Protocol):
    """Who wants to know. Each call is awaited before the next event is taken."""

    async def connected(self, link: "VmHostLink", children: tuple[ChildRecord, ...]) -> None:
        """A vm-host answers; these are its children."""

    async def ended(self, link: "VmHostLink", end: ChildExit) -> None:
        """A child ended."""

    async def lost(self, last_words: StopRecord | None) -> None:
        """Nobody answers any more; what a vm-host wrote when it stopped in good order, if it did."""


class VmHostLink:
    """The link to the vm-host at one socket.

    Args:
        socket_path: Where it listens.
        door: Opens connections.
        listener: Who is told.
        last_words: Reads what a vm-host wrote when it stopped.
    """

    def __init__(
        self, socket_path: Path, door: VmHostDoor, listener: LinkListener, last_words: LastWords
    ) -> None:
        self.socket_path = socket_path
        self._door = door
        self._listener = listener
        self._last_words = last_words
        self._connection: VmHostConnection | None = None
        self._detail = "not connected yet"
        self._told_lost = False
        self.since = datetime.now(UTC)
        """Since when it has been there, or away."""
        self.started_at = 0.0
        """When the vm-host that was there last made its socket (seconds of the epoch)."""
        self.stopping = asyncio.Event()
        """Set when it has announced its end, until another one is there."""
        self.settled = asyncio.Event()
        """Set once the first attempt has succeeded or failed."""

    @property
    def connection(self) -> VmHostConnection:
        """The connection.

        Raises:
            VmHostUnavailableError: There is none now.
        """
        if self._connection is None:
            raise VmHostUnavailableError(f"{self.socket_path}: {self._detail}")
        return self._connection

    @property
    def hello(self) -> VmHostHello | None:
        """How the vm-host introduced itself; None while it is away."""
        return None if self._connection is None else self._connection.hello

    async def current_hello(self) -> VmHostHello:
        """Return how the vm-host introduces itself now: QEMU may have been installed or replaced since.

        Raises:
            VmHostUnavailableError: It does not answer.
        """
        try:
            return await self.connection.refresh_hello()
        except VmHostError as exc:
            raise VmHostUnavailableError(str(exc)) from exc

    @property
    def detail(self) -> str:
        """Why it is away; empty while it is there."""
        return "" if self._connection is not None else self._detail

    async def run(self) -> None:
        """Keep the link; never returns."""
        delay_s = _RETRY_FIRST_S
        while True:
            try:
                async with self._door(self.socket_path) as connection:
                    delay_s = _RETRY_FIRST_S
                    await self._serve(connection)
            except VmHostError as exc:
                self._detail = str(exc)
            finally:
                was_there, self._connection = self._connection is not None, None
            await self._tell_lost(was_there=was_there)
            self.settled.set()
            # The socket's appearance cannot be waited for where its directory may be recreated; the pause is
            # short, since machines wait.
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _RETRY_MOST_S)

    async def _serve(self, connection: VmHostConnection) -> None:
        children = await connection.list_children()
        self.started_at = await asyncio.to_thread(_made_at, self.socket_path)
        self._connection = connection
        self._told_lost = False
        self.stopping.clear()
        self.since = datetime.now(UTC)
        _LOG.info(
            "vm-host connected", extra={"socket": str(self.socket_path), "startId": connection.hello.start_id}
        )
        await self._listener.connected(self, children)
        self.settled.set()
        async for event in connection.watch():
            match event:
                case ChildExit():
                    await self._listener.ended(self, event)
                case Stopping():
                    _LOG.info("vm-host is stopping", extra={"socket": str(self.socket_path)})
                    self.stopping.set()
                    # Gone already: the exits that it sent before are still to be taken.
                    with suppress(VmHostError):
                        await connection.refresh_hello()

    async def _tell_lost(self, *, was_there: bool) -> None:
        if was_there:
            _LOG.warning("vm-host lost", extra={"socket": str(self.socket_path), "error": self._detail})
        if self._told_lost and not was_there:
            return
        self._told_lost = True
        self.since = datetime.now(UTC)
        await self._listener.lost(await asyncio.to_thread(self._last_words, self.socket_path))


def _made_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        # Gone again already.
        return 0.0
