"""One machine's QMP monitor.

Wraps qemu.qmp: every command has a deadline, every foreign error becomes a `MonitorError`, and events
are handed on as plain dictionaries. A monitor serves one client, so one session at a time per machine.

Source: QEMU QMP Reference Manual.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, Self

from qemu.qmp import EventListener, Message, QMPClient, QMPError, Runstate

from qemu_runner.errors import MonitorError
from qemu_runner.transcript import Transcript

# The library logs each lost connection as an error; here a machine that ends is an everyday event.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)

_COMMAND_S: Final = 10.0
_CLOSE_S: Final = 2.0

Event = dict[str, Any]


class _Inbox(EventListener):
    """Takes every event into a queue of its own: the library's keeps a history without bound."""

    def __init__(self, transcript: Transcript) -> None:
        super().__init__()
        self._transcript = transcript
        self.events: asyncio.Queue[Event | None] = asyncio.Queue()

    def accept(self, event: Message) -> bool:
        """Take the event; say no, so that the library forgets it."""
        self._transcript.note("event", dict(event))
        self.events.put_nowait(dict(event))
        return False


class QmpSession:
    """An open monitor; made by `open`, ended by `close`."""

    def __init__(self, client: QMPClient, inbox: _Inbox, transcript: Transcript) -> None:
        self._client = client
        self._inbox = inbox
        self._transcript = transcript
        self._watching: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    async def open(cls, path: Path, *, deadline_s: float, transcript: Transcript) -> Self:
        """Connect, read the greeting, negotiate, and hear the first command's reply.

        The greeting comes before QEMU has built its machine; the reply after.

        Raises:
            MonitorError: Nobody answers there within the deadline.
        """
        client, inbox = QMPClient(path.parent.name), _Inbox(transcript)
        client.register_listener(inbox)
        session = cls(client, inbox, transcript)
        try:
            async with asyncio.timeout(deadline_s):
                await client.connect(str(path))
                await client.execute("query-status")
            transcript.note("event", {"event": "connected"})
        except TimeoutError as exc:
            await session.close()
            raise MonitorError("connect", f"no answer within {deadline_s:g} s") from exc
        except (QMPError, OSError) as exc:
            await session.close()
            raise MonitorError("connect", str(exc) or type(exc).__name__) from exc
        except BaseException:
            await session.close()
            raise
        session._watching = asyncio.create_task(session._watch_end(), name=f"qmp {path.parent.name}")
        return session

    async def execute(
        self, command: str, arguments: dict[str, object] | None = None, *, deadline_s: float = _COMMAND_S
    ) -> Any:
        """Execute a command and return what it answers.

        Raises:
            MonitorError: It was refused, the connection ended, or no answer came in time.
        """
        self._transcript.note("command", {"execute": command, "arguments": arguments or {}})
        try:
            async with asyncio.timeout(deadline_s):
                answer = await self._client.execute(command, arguments)
        except TimeoutError as exc:
            self._transcript.note("error", f"{command}: no answer within {deadline_s:g} s")
            raise MonitorError(command, f"no answer within {deadline_s:g} s") from exc
        except QMPError as exc:
            self._transcript.note("error", f"{command}: {exc}")
            raise MonitorError(command, str(exc) or type(exc).__name__) from exc
        self._transcript.note("return", answer)
        return answer

    async def give(self, name: str, descriptor: int) -> None:
        """Give QEMU a copy of a descriptor, under a name that one later command uses up (QMP `getfd`).

        Raises:
            MonitorError: As for `execute`.
        """
        try:
            self._client.send_fd_scm(descriptor)
        except (QMPError, OSError) as exc:
            raise MonitorError("getfd", str(exc) or type(exc).__name__) from exc
        await self.execute("getfd", {"fdname": name})

    async def run_state(self) -> str:
        """Return QEMU's run state (QAPI `RunState`).

        Raises:
            MonitorError: As for `execute`.
        """
        return str((await self.execute("query-status"))["status"])

    async def uuid(self) -> str:
        """Return the machine's UUID as QEMU knows it.

        Raises:
            MonitorError: As for `execute`.
        """
        return str((await self.execute("query-uuid"))["UUID"]).lower()

    async def channel_is_open(self, chardev: str) -> bool:
        """Tell whether the guest has opened the other end of a channel.

        Raises:
            MonitorError: As for `execute`.
        """
        found = await self.execute("query-chardev")
        return any(entry["label"] == chardev and entry["frontend-open"] for entry in found)

    async def events(self) -> AsyncIterator[Event]:
        """Yield each event; ends when the connection does. For one reader."""
        while (event := await self._inbox.events.get()) is not None:
            yield event

    async def close(self) -> None:
        """Close the connection; the machine runs on. Harmless when it is closed."""
        if self._closed:
            return
        self._closed = True
        if self._watching is not None:
            self._watching.cancel()
        self._inbox.events.put_nowait(None)
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._client.disconnect()
        except (QMPError, OSError, EOFError, TimeoutError):
            # What broke the connection was told to whoever waited on it.
            return

    async def _watch_end(self) -> None:
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()
        self._inbox.events.put_nowait(None)
