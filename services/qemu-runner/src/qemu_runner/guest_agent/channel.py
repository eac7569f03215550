"""The wire to a guest agent: one command at a time, found again after every time-out.

The guest is hostile: it may send without end, in pieces, garbage, or nothing. Whatever it does costs bounded
memory and bounded time. An answer that came too late must never be taken for the next command's, so after
anything unexpected the channel is dirty, and is synchronised before it is used again. A command is sent only
when the one before has left: a guest that does not read must not make the queue grow. An answer is parsed
only when its structure is as small as that of an honest one: a few MiB of brackets become GiB of objects.

Source: QEMU Guest Agent Protocol Reference, `guest-sync-delimited`.
"""

import asyncio
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from qemu_runner.errors import GuestAgentRefusedError, GuestAgentUnavailableError

_SENTINEL: Final = b"\xff"
_MAX_ANSWER_BYTES: Final = 48 * 1024 * 1024  # an exec's two outputs, 16 MiB each at most, in base64
_MAX_STRUCTURE: Final = 100_000  # braces, brackets, commas and colons of an answer
_MAX_SYNC_BYTES: Final = 64 * 1024 * 1024  # what may lie before the sentinel: at most one late answer
_READ_BYTES: Final = 65_536
_MAX_ERROR_CHARACTERS: Final = 500


class AgentChannel:
    """A connection to the agent's chardev; made by `open`, ended by `close`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        # Draining then means that everything has left, not that there is some room.
        writer.transport.set_write_buffer_limits(high=0)
        self._turn = asyncio.Lock()
        self._dirty = True
        self._pending = b""

    @classmethod
    async def open(cls, path: Path, *, deadline_s: float) -> Self:
        """Connect to the channel's socket; the guest need not listen yet.

        Raises:
            GuestAgentUnavailableError: Nobody serves the socket, or another client has it.
        """
        try:
            async with asyncio.timeout(deadline_s):
                reader, writer = await asyncio.open_unix_connection(str(path), limit=_READ_BYTES)
        except (OSError, TimeoutError) as exc:
            raise GuestAgentUnavailableError(f"its channel cannot be opened: {exc or 'time-out'}") from exc
        return cls(reader, writer)

    async def call(
        self, command: str, arguments: Mapping[str, Any] | None = None, *, deadline_s: float
    ) -> Any:
        """Send a command and return what the agent returns; not to be trusted.

        Raises:
            GuestAgentRefusedError: The agent answered with an error.
            GuestAgentUnavailableError: No usable answer came in time.
        """
        document: dict[str, Any] = {"execute": command}
        if arguments is not None:
            document["arguments"] = dict(arguments)
        async with self._turn:
            try:
                async with asyncio.timeout(deadline_s):
                    await self._writer.drain()
                    if self._dirty:
                        await self._synchronise()
                    # Until its answer has been read whole, the next command could be given this one's.
                    self._dirty = True
                    await self._send(document)
                    answer = _parsed(await self._line(_MAX_ANSWER_BYTES))
                    # More than one answer to one command: whose the rest is, nobody knows.
                    self._dirty = bool(self._pending)
            except TimeoutError as exc:
                raise GuestAgentUnavailableError(f"no answer to {command} within {deadline_s:g} s") from exc
            except OSError as exc:
                raise GuestAgentUnavailableError(f"its channel broke: {exc}") from exc
        if "error" in answer:
            raise GuestAgentRefusedError(command, _error_text(answer["error"]))
        if "return" not in answer:
            self._dirty = True
            raise GuestAgentUnavailableError(f"its answer to {command} is no answer")
        return answer["return"]

    async def close(self) -> None:
        """Close the connection; the next client finds the agent as it is."""
        self._writer.close()

    async def _synchronise(self) -> None:
        number = secrets.randbelow(2**31)
        # The sentinel makes the agent forget a half command that an earlier client left.
        self._writer.write(_SENTINEL)
        await self._send({"execute": "guest-sync-delimited", "arguments": {"id": number}})
        self._pending = b""
        passed = 0
        while True:
            chunk = await self._read()
            passed += len(chunk)
            if passed > _MAX_SYNC_BYTES:
                raise GuestAgentUnavailableError("it sends without end")
            self._pending += chunk
            _, found, rest = self._pending.rpartition(_SENTINEL)
            if not found:
                self._pending = b""
                continue
            self._pending = found + rest
            if b"\n" not in rest:
                if len(rest) > _READ_BYTES:
                    self._pending = b""
                continue
            line, _, self._pending = rest.partition(b"\n")
            if _answers_sync(line, number):
                self._dirty = False
                return

    async def _send(self, document: dict[str, Any]) -> None:
        self._writer.write(json.dumps(document).encode() + b"\n")
        await self._writer.drain()

    async def _line(self, limit: int) -> bytes:
        gathered = bytearray(self._pending)
        self._pending = b""
        looked = 0
        while (end := gathered.find(b"\n", looked)) < 0:
            looked = len(gathered)
            if looked > limit:
                raise GuestAgentUnavailableError("its answer has no end")
            gathered += await self._read()
        self._pending = bytes(gathered[end + 1 :])
        return bytes(gathered[:end])

    async def _read(self) -> bytes:
        chunk = await self._reader.read(_READ_BYTES)
        if not chunk:
            raise GuestAgentUnavailableError("its channel was closed")
        return chunk


def _parsed(line: bytes) -> dict[str, Any]:
    if sum(map(line.count, (b"{", b"[", b",", b":"))) > _MAX_STRUCTURE:
        raise GuestAgentUnavailableError("its answer has more parts than any answer has")
    try:
        answer = json.loads(line.replace(_SENTINEL, b""))
    except (ValueError, RecursionError) as exc:
        raise GuestAgentUnavailableError("its answer cannot be read") from exc
    if not isinstance(answer, dict):
        raise GuestAgentUnavailableError("its answer is no object")
    return answer


def _answers_sync(line: bytes, number: int) -> bool:
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(answer, dict) and answer.get("return") == number


def _error_text(error: object) -> str:
    text = error.get("desc") if isinstance(error, dict) else None
    return (text if isinstance(text, str) else "an error without words")[:_MAX_ERROR_CHARACTERS]
