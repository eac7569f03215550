"""One viewer of a machine's console: output from the log by offset, and what it asks.

Output never comes from QEMU's socket, so a viewer that does not read holds nothing but its place in a file.
One that falls far behind is moved on and told what it has missed.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final, Protocol

from qemu_runner.domain.console_talk import (
    MAX_INPUT_BYTES,
    Command,
    End,
    Gap,
    Input,
    InputRefused,
    News,
    Opened,
    Output,
    Refusal,
    Resize,
    Resized,
    Role,
    RoleRequest,
    ViewerWish,
)
from qemu_runner.errors import MachineNotFoundError, RunnerError
from qemu_runner.service.console_roles import WriterRole
from qemu_runner.service.machines import Machine
from qemu_runner.store.console_log import ConsoleChunk, ConsoleLog
from qemu_runner.store.file_growth import FileGrowth

_CHUNK_BYTES: Final = 64 * 1024
_MOST_BEHIND_BYTES: Final = 1024 * 1024
_MOVED_TO_BYTES: Final = 64 * 1024
_TAIL_BYTES: Final = 16 * 1024
_MOST_NOTICES: Final = 16


class Line(Protocol):
    """What a session needs of its machine's console."""

    machine: Machine
    role: WriterRole
    log: ConsoleLog

    async def send(self, data: bytes) -> InputRefused | None:
        """Have the guest take the bytes; return why it has not."""

    async def resize(self, number: int, size: Resize) -> Resized:
        """Have the guest's terminal know the size of a viewer that writes."""


class ConsoleSession:
    """A viewer that is attached.

    Args:
        line: Its machine's console; the machine has a process.
        growth: Tells when the log grows.
        number: Which viewer it is.
        wish: What it asked for.
    """

    def __init__(self, line: Line, growth: FileGrowth, number: int, wish: ViewerWish) -> None:
        self._line = line
        self._growth = growth
        self._wish = wish
        self.number: Final = number
        self.label: Final = wish.label or f"viewer {number}"
        run = line.machine.run
        self._incarnation = 0 if run is None else run.incarnation
        self._offset = 0
        self._notices: deque[News] = deque()
        # There is something to tell: the log has grown, somebody has asked, the machine has ended.
        self._wake = asyncio.Event()
        self._told = asyncio.Event()
        self._role_is_new, self._lost = True, False
        self._failure: RunnerError | None = None
        self._size: Resize | None = None
        self._resizing = asyncio.Event()

    def begin(self) -> None:
        """Take the role if that was wished, before anything the viewer sends is done."""
        if self._wish.write:
            self._notices.append(self._claim(RoleRequest(take=True, force=self._wish.force)))

    def role_changed(self, *, lost: bool) -> None:
        """Have the viewer told who writes now; only the present state counts."""
        self._role_is_new = True
        self._lost = self._lost or lost
        self._wake.set()

    async def obey(self, commands: AsyncIterator[Command]) -> None:
        """Do what the viewer asks, one after the other, until it asks no more; it still sees then.

        Whatever is wrong with what it sends ends the news, with that error.
        """
        sizing = asyncio.create_task(self._follow_sizes())
        try:
            async for command in commands:
                match command:
                    case Input(data=data):
                        await self._input(data)
                    case Resize():
                        # The latest wins: a window that is dragged asks for many sizes.
                        self._size = command
                        self._resizing.set()
                    case RoleRequest():
                        await self._change_role(command)
            await asyncio.Event().wait()
        except RunnerError as exc:
            self._failure = exc
            self._wake.set()
        finally:
            sizing.cancel()
            await asyncio.gather(sizing, return_exceptions=True)

    async def news(self) -> AsyncGenerator[News, None]:
        """Yield what there is to tell, ending with `End`.

        Raises:
            MachineNotFoundError: The machine is gone before anything was told of it.
            RunnerError: What the viewer sent cannot be read.
        """
        ending = asyncio.create_task(self._line.machine.ended.wait())
        ending.add_done_callback(lambda _: self._wake.set())
        try:
            with self._growth.watching(self._line.log.path, self._wake):
                async for one in self._tell():
                    yield one
        except FileNotFoundError as exc:
            raise MachineNotFoundError(self._line.machine.machine_id) from exc
        finally:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)

    async def _tell(self) -> AsyncIterator[News]:
        wanted = self._wish.offset
        log = self._line.log
        size = await log.size()
        begin = log.begin(-_TAIL_BYTES if wanted is None else wanted, size)
        self._offset = await log.first_kept(begin)
        yield Opened(self._offset, self.label, size)
        if wanted is not None and wanted < self._offset:
            yield Gap(wanted, self._offset)
        while True:
            self._wake.clear()
            for notice in self._pending():
                yield notice
            if self._failure is not None:
                raise self._failure
            # Asked before the log is read: what is not there now will not come.
            is_over = self._is_over
            chunk = await self._next()
            if chunk.offset != self._offset:
                yield Gap(self._offset, chunk.offset)
            self._offset = chunk.offset + len(chunk.data)
            if chunk.data:
                yield Output(chunk.data)
            elif is_over:
                yield self._end()
                return
            else:
                await self._wake.wait()

    def _pending(self) -> list[News]:
        pending = [*self._notices]
        self._notices.clear()
        self._told.set()
        if self._role_is_new:
            pending.append(self._role(lost=self._lost))
        self._role_is_new = self._lost = False
        return pending

    async def _next(self) -> ConsoleChunk:
        log = self._line.log
        chunk = await log.chunk(self._offset, _CHUNK_BYTES)
        if chunk.total_bytes - chunk.offset > _MOST_BEHIND_BYTES:
            return await log.chunk(chunk.total_bytes - _MOVED_TO_BYTES, _CHUNK_BYTES)
        return chunk

    @property
    def _is_over(self) -> bool:
        run = self._line.machine.run
        return run is None or run.incarnation != self._incarnation

    def _end(self) -> End:
        record = self._line.machine.record
        if record is None:
            return End("DELETED", "The machine is gone.", self._offset)
        if record.exit is None:
            return End("RESTARTED", "The machine has been started anew.", self._offset)
        return End(record.exit.reason, record.exit.message, self._offset)

    async def _input(self, data: bytes) -> None:
        holder = self._line.role.holder
        if self._is_over:
            await self._post(InputRefused(Refusal.MACHINE_NOT_RUNNING, "That run of the machine has ended."))
        elif len(data) > MAX_INPUT_BYTES:
            await self._post(
                InputRefused(Refusal.INPUT_TOO_LARGE, f"At most {MAX_INPUT_BYTES} bytes at a time.")
            )
        elif holder is None or holder.number != self.number:
            who = "nobody" if holder is None else holder.label
            await self._post(
                InputRefused(Refusal.NOT_THE_WRITER, f"The writer is {who}: take the role first.")
            )
        elif data and (refused := await self._line.send(data)) is not None:
            await self._post(refused)

    async def _change_role(self, command: RoleRequest) -> None:
        if command.take:
            await self._post(self._claim(command))
        else:
            self._line.role.release(self.number)
            # What follows tells it.
            self._role_is_new = self._lost
            await self._post(self._role())

    def _claim(self, command: RoleRequest) -> Role:
        has = self._line.role.claim(self.number, self.label, force=command.force)
        # What is returned tells it.
        self._role_is_new = self._lost
        return self._role(refused=not has)

    def _role(self, *, refused: bool = False, lost: bool = False) -> Role:
        holder = self._line.role.holder
        if holder is None:
            return Role(False, "", None, refused, lost)
        return Role(holder.number == self.number, holder.label, holder.since, refused, lost)

    async def _post(self, notice: News) -> None:
        """Have something told; whoever asks without listening waits here."""
        while len(self._notices) >= _MOST_NOTICES:
            self._told.clear()
            await self._told.wait()
        self._notices.append(notice)
        self._wake.set()

    async def _follow_sizes(self) -> None:
        while True:
            await self._resizing.wait()
            self._resizing.clear()
            if self._size is not None:
                await self._post(await self._line.resize(self.number, self._size))
