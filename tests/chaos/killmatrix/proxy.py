"""A connection that can be cut: a unix socket in front of another one."""

import asyncio
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_BLOCK: Final = 64 * 1024


class Proxy:
    """Passes bytes both ways between whoever connects to `path` and `behind`, until it is cut."""

    def __init__(self, path: Path, behind: Path) -> None:
        self._path = path
        self._behind = behind
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._away = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def target(self) -> str:
        """As gRPC calls it."""
        return f"unix:{self._path}"

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._accepted, self._path)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Listen no more and cut what there is."""
        if self._server is not None:
            self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Break every connection without a word; bytes on their way are lost."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    def leave(self) -> None:
        """Break every connection and let nobody in: the process behind is dead."""
        self._away = True
        self.cut()

    def come_back(self) -> None:
        """Let in again."""
        self._away = False

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._passed(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _passed(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._away:
            writer.transport.abort()
            return
        try:
            behind_reader, behind_writer = await asyncio.open_unix_connection(self._behind)
        except OSError:
            writer.transport.abort()
            return
        ends = (writer, behind_writer)
        self._writers.update(ends)
        try:
            await asyncio.gather(_pump(reader, behind_writer), _pump(behind_reader, writer))
        finally:
            for end in ends:
                self._writers.discard(end)
                end.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while block := await reader.read(_BLOCK):
            writer.write(block)
            await writer.drain()
    writer.transport.abort()
