"""What is asked of a guest agent: who the guest is, and programs run in it.

Every answer is cut to bounds and checked before it becomes a value; a wrong type counts as not answered.
"""

import asyncio
import base64
import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from qemu_runner.domain.observation import GuestInfo, GuestOs, GuestTimeZone
from qemu_runner.errors import (
    GuestAgentRefusedError,
    GuestError,
    GuestExecTimeoutError,
    GuestProgramNotFoundError,
)
from qemu_runner.guest_agent.answers import content, interfaces, member, process_id, text
from qemu_runner.guest_agent.channel import AgentChannel
from qemu_runner.store.guest_ledger import GuestLedger

# An emulated guest on a host with too much to do takes seconds for what takes milliseconds.
_COMMAND_S: Final = 10.0
_STATUS_S: Final = 30.0
_OPEN_S: Final = 2.0
_MAX_OFFSET_S: Final = 24 * 3600
_MAX_OUTPUT_BYTES: Final = 1024 * 1024
_POLL_FIRST_S: Final = 0.01
_POLL_MOST_S: Final = 0.5
_KILL_S: Final = 2.0
# qemu-ga hands on what g_spawn_async says of a program that is missing or may not be executed.
_NO_PROGRAM: Final = re.compile(
    r"No such file or directory|Permission denied|Exec format error|Failed to execute"
)


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a program in the guest ended.

    Attributes:
        exit_code: Its code, or 128 and the number of the signal that ended it.
        stdout: What it wrote, up to 1 MiB.
        stderr: Likewise.
        truncated: Whether it wrote more.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    truncated: bool


class GuestAgent:
    """The agent of one guest; made by `connect`, ended by `close`.

    Attributes:
        ledger: Where is written down what of ours lies in the guest.
    """

    def __init__(self, channel: AgentChannel, ledger: GuestLedger) -> None:
        self._channel = channel
        self.ledger = ledger

    @classmethod
    async def connect(cls, path: Path, ledger: GuestLedger) -> Self:
        """Open the channel; `ping` tells whether somebody answers.

        Raises:
            GuestAgentUnavailableError: Nobody serves the socket.
        """
        return cls(await AgentChannel.open(path, deadline_s=_OPEN_S), ledger)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def ping(self, *, deadline_s: float = _COMMAND_S) -> None:
        """Return once the agent has answered.

        Raises:
            GuestError: It has not.
        """
        await self._channel.call("guest-ping", deadline_s=deadline_s)

    async def call(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        deadline_s: float = _COMMAND_S,
    ) -> object:
        """Send one command and return what the agent returns; not to be trusted.

        Raises:
            GuestAgentRefusedError: The agent answered with an error.
            GuestAgentUnavailableError: No usable answer came in time.
        """
        return await self._channel.call(command, arguments, deadline_s=deadline_s)

    async def ask(self, command: str, arguments: Mapping[str, Any] | None = None) -> object:
        """Send a command that need not succeed; None where the agent refuses it.

        Raises:
            GuestAgentUnavailableError: It answers no more.
        """
        try:
            return await self.call(command, arguments)
        except GuestAgentRefusedError:
            # Agents may be built or configured without a command; the rest is told all the same.
            return None

    async def info(self) -> GuestInfo:
        """Ask for host name, system, addresses and time zone; what the agent does not know stays empty.

        Raises:
            GuestAgentUnavailableError: It answers no more.
        """
        name, system, cards, zone = [
            await self.ask(command)
            for command in (
                "guest-get-host-name",
                "guest-get-osinfo",
                "guest-network-get-interfaces",
                "guest-get-timezone",
            )
        ]
        known = GuestInfo(
            hostname=text(name, "host-name"),
            os=GuestOs(
                id=text(system, "id"),
                name=text(system, "name"),
                pretty_name=text(system, "pretty-name"),
                version=text(system, "version"),
                kernel_release=text(system, "kernel-release"),
                machine=text(system, "machine"),
            ),
            interfaces=interfaces(cards),
            time_zone=_time_zone(zone),
        )
        return known.bounded()

    async def execute(
        self, argv: tuple[str, ...], env: Mapping[str, str], stdin: bytes, timeout_s: float
    ) -> ExecResult:
        """Run a program in the guest and wait for its end.

        Raises:
            GuestProgramNotFoundError: There is no such program.
            GuestExecTimeoutError: It did not end in time; it was ended where the guest let us.
            GuestError: The agent refused, or answers no more.
        """
        arguments: dict[str, Any] = {"path": argv[0], "arg": list(argv[1:]), "capture-output": True}
        if env:
            arguments["env"] = [f"{key}={value}" for key, value in env.items()]
        if stdin:
            arguments["input-data"] = base64.b64encode(stdin).decode()
        try:
            started = await self._channel.call("guest-exec", arguments, deadline_s=_COMMAND_S)
        except GuestAgentRefusedError as exc:
            if _NO_PROGRAM.search(exc.detail):
                raise GuestProgramNotFoundError(argv[0]) from exc
            raise
        pid = process_id(started)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._ended(pid)
        except TimeoutError as exc:
            raise GuestExecTimeoutError(argv[0], timeout_s, ended=await self.kill(pid)) from exc
        except asyncio.CancelledError:
            # Whoever asked has gone; the program must not stay behind.
            await self.kill(pid)
            raise

    async def _ended(self, pid: int) -> ExecResult:
        pause_s = _POLL_FIRST_S
        while True:
            # The agent tells no ends by itself: asking again is its protocol.
            # An answer that is not waited for is lost, and with it what the program wrote.
            status = await self._channel.call("guest-exec-status", {"pid": pid}, deadline_s=_STATUS_S)
            if isinstance(status, dict) and status.get("exited") is True:
                return _exec_result(status)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _POLL_MOST_S)

    async def kill(self, pid: int) -> bool:
        """End a process; tell whether the guest let us."""
        for path in ("/bin/kill", "/usr/bin/kill"):
            with contextlib.suppress(GuestError):
                await self._channel.call(
                    "guest-exec", {"path": path, "arg": ["-KILL", str(pid)]}, deadline_s=_KILL_S
                )
                return True
        return False


def _time_zone(answer: object) -> GuestTimeZone | None:
    offset = member(answer, "offset")
    if isinstance(offset, bool) or not isinstance(offset, int) or abs(offset) > _MAX_OFFSET_S:
        return None
    return GuestTimeZone(text(answer, "zone"), offset)


def exit_code_of(status: object) -> int:
    """Return the exit code that a status tells, or 128 and the signal."""
    code, signal = member(status, "exitcode"), member(status, "signal")
    if not isinstance(code, int):
        code = 128 + signal if isinstance(signal, int) else -1
    return max(-(2**31), min(code, 2**31 - 1))


def _exec_result(status: dict[str, Any]) -> ExecResult:
    # One byte more than is kept tells that there was more.
    stdout, stderr = (content(status.get(key), _MAX_OUTPUT_BYTES + 1) for key in ("out-data", "err-data"))
    longer = any(len(data) > _MAX_OUTPUT_BYTES for data in (stdout, stderr))
    return ExecResult(
        exit_code=exit_code_of(status),
        stdout=stdout[:_MAX_OUTPUT_BYTES],
        stderr=stderr[:_MAX_OUTPUT_BYTES],
        truncated=longer or status.get("out-truncated") is True or status.get("err-truncated") is True,
    )
