"""A program in the guest whose output is told while it runs.

The agent hands out what a program wrote only when it has ended. So the program writes into two files of a
directory of its own in the guest's /tmp, which the agent reads beside it: asking again is the agent's
protocol, fast while something comes and slower while nothing does. The directory is removed at the end.

Pipes would spare the guest the files, but the agent reads them through stdio and loses what a short read
has taken (ADR 96).
"""

import asyncio
import base64
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

from qemu_runner.domain.guest_program import Channel, Output, Program, ProgramEnd
from qemu_runner.errors import (
    GuestAgentRefusedError,
    GuestError,
    GuestExecTimeoutError,
    GuestProgramNotFoundError,
)
from qemu_runner.guest_agent.answers import content, handle, member, process_id
from qemu_runner.guest_agent.client import GuestAgent, exit_code_of
from qemu_runner.guest_agent.leftovers import WHO_AM_I, remove_program
from qemu_runner.store.guest_ledger import Entry

MAX_OUTPUT_BYTES: Final = 64 * 1024 * 1024
"""How much of each channel is told; whoever writes more is ended."""

_PIECE_BYTES: Final = 64 * 1024
_AT_ONCE: Final = 16
_POLL_FIRST_S: Final = 0.02
_POLL_MOST_S: Final = 0.5
_SCRIPT_S: Final = 15.0
_DIES_WITHIN_S: Final = 10.0
_MISSING: Final = 27

_BEGIN: Final = """\
mkdir -m 700 "$1" && true > "$1/stdout" && true > "$1/stderr"
"""
# Only what the shell has built in, since PATH may be the caller's, and no variables: they may be, too.
_RUN: Final = f"""\
{WHO_AM_I}\
case $2 in
  */*) [ -x "$2" ] && [ ! -d "$2" ] ;;
  *) command -v "$2" > "$1/which" ;;
esac || {{ true > "$1/missing"; exit 127; }}
exec >> "$1/stdout" 2>> "$1/stderr"
shift
exec "$@"
"""
_FINISH: Final = """\
[ ! -e "$1/missing" ] || code=27
rm -rf "$1"
exit ${code:-0}
"""


async def run(
    agent: GuestAgent, program: Program, *, most_bytes: int = MAX_OUTPUT_BYTES
) -> AsyncGenerator[Output | ProgramEnd, None]:
    """Run a program; yield an empty output when it has begun, what it writes, and its end.

    Whoever stops listening ends the program.

    Raises:
        GuestProgramNotFoundError: There is no such program.
        GuestExecTimeoutError: It did not end in time; it was ended where the guest let us.
        GuestError: The agent refused, or answers no more.
        DiskFullError: There is no room on this host to write down what is in the guest.
    """
    # The guest's /tmp.
    async with (
        agent.ledger.entry("/tmp", is_program=True) as entry,  # noqa: S108
        contextlib.aclosing(_run(agent, program, most_bytes, entry)) as parts,
    ):
        async for part in parts:
            yield part


async def _run(
    agent: GuestAgent, program: Program, most_bytes: int, entry: Entry
) -> AsyncGenerator[Output | ProgramEnd, None]:
    directory = entry.path
    begun = await agent.execute(("/bin/sh", "-c", _BEGIN, "sh", directory), {}, b"", _SCRIPT_S)
    if begun.exit_code != 0:
        said = begun.stderr.decode("utf-8", "replace").strip()[:200]
        raise GuestAgentRefusedError("guest-exec", said or "no directory for the output can be made")
    pid: int | None = None
    ended = False
    watchdog: asyncio.Task[bool] | None = None
    files: list[_Tail] = []
    try:
        files += [await _Tail.open(agent, entry, channel, most_bytes) for channel in Channel]
        pid = await _start(agent, directory, program)
        watchdog = asyncio.create_task(_kill_later(agent, pid, program.timeout_s))
        yield Output(Channel.STDOUT, b"")
        pause_s, killed = _POLL_FIRST_S, False
        given_up = asyncio.get_running_loop().time() + program.timeout_s + _DIES_WITHIN_S
        while not ended:
            status = await agent.call("guest-exec-status", {"pid": pid})
            ended = member(status, "exited") is True
            moved = False
            for file in files:
                async for piece in file.read(to_the_end=ended):
                    moved = True
                    yield Output(file.channel, piece)
            if not ended:
                if asyncio.get_running_loop().time() > given_up:
                    raise GuestExecTimeoutError(program.argv[0], program.timeout_s, ended=False)
                if any(file.beyond for file in files) and not killed:
                    killed = await agent.kill(pid)
                pause_s = _POLL_FIRST_S if moved else min(pause_s * 2, _POLL_MOST_S)
                await asyncio.sleep(pause_s)
        if watchdog.done():
            raise GuestExecTimeoutError(program.argv[0], program.timeout_s, ended=True)
        code = await _finish(agent, directory)
        entry.gone = True
        if code == _MISSING:
            raise GuestProgramNotFoundError(program.argv[0])
        yield ProgramEnd(exit_code_of(status), truncated=any(file.beyond for file in files))
    finally:
        if watchdog is not None:
            watchdog.cancel()
            await asyncio.wait({watchdog})
        if pid is not None and not ended:
            await agent.kill(pid)
        for file in files:
            await file.close()
        if not entry.gone:
            with contextlib.suppress(GuestError):
                await remove_program(agent, directory)
                entry.gone = True


class _Tail:
    """One channel's file, read from its beginning on while it grows."""

    def __init__(self, agent: GuestAgent, channel: Channel, opened: int, most_bytes: int) -> None:
        self.channel = channel
        self.beyond = False
        self._agent = agent
        self._opened = opened
        self._left = most_bytes
        self._at = 0

    @classmethod
    async def open(cls, agent: GuestAgent, entry: Entry, channel: Channel, most_bytes: int) -> "_Tail":
        arguments = {"path": f"{entry.path}/{channel}", "mode": "r"}
        opened = handle(await agent.call("guest-file-open", arguments))
        await entry.opened(opened)
        return cls(agent, channel, opened, most_bytes)

    async def read(self, *, to_the_end: bool) -> AsyncIterator[bytes]:
        """Yield what is there; of a writer that is faster than the agent some at a time."""
        pieces = 0
        while not self.beyond and (to_the_end or pieces < _AT_ONCE):
            arguments = {"handle": self._opened, "count": _PIECE_BYTES}
            answer = await self._agent.call("guest-file-read", arguments)
            piece = content(member(answer, "buf-b64"), _PIECE_BYTES)
            if not piece:
                return
            self.beyond = len(piece) > self._left
            told = piece[: self._left]
            self._left -= len(told)
            self._at += len(piece)
            pieces += 1
            if told:
                yield told
            if member(answer, "eof") is True:
                return
        if not self.beyond:
            await self._look_ahead()

    async def close(self) -> None:
        with contextlib.suppress(GuestError):
            await self._agent.call("guest-file-close", {"handle": self._opened})

    async def _look_ahead(self) -> None:
        # What is waiting counts: the guest's disk must not fill up at the program's speed.
        size = member(await self._seek(0, "end"), "position")
        self.beyond = isinstance(size, int) and size - self._at > self._left
        if not self.beyond:
            await self._seek(self._at, "set")

    async def _seek(self, offset: int, whence: str) -> object:
        arguments = {"handle": self._opened, "offset": offset, "whence": whence}
        return await self._agent.call("guest-file-seek", arguments)


async def _start(agent: GuestAgent, directory: str, program: Program) -> int:
    arguments: dict[str, Any] = {
        "path": "/bin/sh",
        "arg": ["-c", _RUN, "sh", directory, *program.argv],
        "capture-output": False,
    }
    if program.env:
        arguments["env"] = [f"{key}={value}" for key, value in program.env.items()]
    if program.stdin:
        arguments["input-data"] = base64.b64encode(program.stdin).decode()
    return process_id(await agent.call("guest-exec", arguments))


async def _kill_later(agent: GuestAgent, pid: int, after_s: float) -> bool:
    await asyncio.sleep(after_s)
    return await agent.kill(pid)


async def _finish(agent: GuestAgent, directory: str) -> int:
    finished = await agent.execute(("/bin/sh", "-c", _FINISH, "sh", directory), {}, b"", _SCRIPT_S)
    return finished.exit_code
