"""What is asked of a guest agent: who the guest is, and programs run in it.

Every answer is cut to bounds and checked before it becomes a value; a wrong type counts as not answered.
"""

import asyncio
import base64
import binascii
import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Self

from qemu_runner.domain.observation import Address, GuestInfo, GuestInterface, GuestOs
from qemu_runner.errors import (
    GuestAgentRefusedError,
    GuestAgentUnavailableError,
    GuestError,
    GuestExecTimeoutError,
    GuestProgramNotFoundError,
)
from qemu_runner.guest_agent.channel import AgentChannel

_COMMAND_S: Final = 5.0
_OPEN_S: Final = 2.0
_MAX_TEXT: Final = 256
_MAX_INTERFACES: Final = 64
_MAX_ADDRESSES: Final = 64
_MAX_OUTPUT_BYTES: Final = 1024 * 1024
_POLL_FIRST_S: Final = 0.01
_POLL_MOST_S: Final = 0.5
_KILL_S: Final = 2.0
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
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
    """The agent of one guest; made by `connect`, ended by `close`."""

    def __init__(self, channel: AgentChannel) -> None:
        self._channel = channel

    @classmethod
    async def connect(cls, path: Path) -> Self:
        """Open the channel; `ping` tells whether somebody answers.

        Raises:
            GuestAgentUnavailableError: Nobody serves the socket.
        """
        return cls(await AgentChannel.open(path, deadline_s=_OPEN_S))

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def ping(self, *, deadline_s: float = _COMMAND_S) -> None:
        """Return once the agent has answered.

        Raises:
            GuestError: It has not.
        """
        await self._channel.call("guest-ping", deadline_s=deadline_s)

    async def info(self) -> GuestInfo:
        """Ask for host name, system and addresses; what the agent does not know stays empty.

        Raises:
            GuestAgentUnavailableError: It answers no more.
        """
        name, system, interfaces = [
            await self._ask(command)
            for command in ("guest-get-host-name", "guest-get-osinfo", "guest-network-get-interfaces")
        ]
        return GuestInfo(
            hostname=_text(name, "host-name"),
            os=GuestOs(
                id=_text(system, "id"),
                name=_text(system, "name"),
                pretty_name=_text(system, "pretty-name"),
                version=_text(system, "version"),
                kernel_release=_text(system, "kernel-release"),
                machine=_text(system, "machine"),
            ),
            interfaces=_interfaces(interfaces),
        )

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
        pid = _number(started, "pid")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._ended(pid)
        except TimeoutError as exc:
            raise GuestExecTimeoutError(argv[0], timeout_s, ended=await self._kill(pid)) from exc
        except asyncio.CancelledError:
            # Whoever asked has gone; the program must not stay behind.
            await self._kill(pid)
            raise

    async def _ended(self, pid: int) -> ExecResult:
        pause_s = _POLL_FIRST_S
        while True:
            # The agent tells no ends by itself: asking again is its protocol.
            status = await self._channel.call("guest-exec-status", {"pid": pid}, deadline_s=_COMMAND_S)
            if isinstance(status, dict) and status.get("exited") is True:
                return _exec_result(status)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _POLL_MOST_S)

    async def _kill(self, pid: int) -> bool:
        for path in ("/bin/kill", "/usr/bin/kill"):
            with contextlib.suppress(GuestError):
                await self._channel.call(
                    "guest-exec", {"path": path, "arg": ["-KILL", str(pid)]}, deadline_s=_KILL_S
                )
                return True
        return False

    async def _ask(self, command: str) -> object:
        try:
            return await self._channel.call(command, deadline_s=_COMMAND_S)
        except GuestAgentRefusedError:
            # Agents may be built or configured without a command; the rest is told all the same.
            return None


def _text(answer: object, key: str) -> str:
    value = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(value, str):
        return ""
    return "".join(character for character in value[:_MAX_TEXT] if character.isprintable())


def _number(answer: object, key: str) -> int:
    value = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(value, int) or not 0 < value < 2**31:
        raise GuestAgentUnavailableError("its answer is of the wrong shape")
    return value


def _interfaces(answer: object) -> tuple[GuestInterface, ...]:
    if not isinstance(answer, list):
        return ()
    found = []
    for entry in answer[:_MAX_INTERFACES]:
        mac = _text(entry, "hardware-address").lower()
        listed = entry.get("ip-addresses") if isinstance(entry, dict) else None
        if _MAC.fullmatch(mac) and isinstance(listed, list):
            addresses = [_address(_text(one, "ip-address")) for one in listed[:_MAX_ADDRESSES]]
            found.append(GuestInterface(mac, tuple(one for one in addresses if one is not None)))
    return tuple(found)


def _address(text: str) -> Address | None:
    try:
        parsed = ip_address(text)
    except ValueError:
        return None
    return Address(str(parsed), f"ipv{parsed.version}", "agent")


def _exec_result(status: dict[str, Any]) -> ExecResult:
    code, signal = status.get("exitcode"), status.get("signal")
    if not isinstance(code, int):
        code = 128 + signal if isinstance(signal, int) else -1
    stdout, stderr = _bytes(status.get("out-data")), _bytes(status.get("err-data"))
    longer = any(len(data) > _MAX_OUTPUT_BYTES for data in (stdout, stderr))
    return ExecResult(
        exit_code=max(-(2**31), min(code, 2**31 - 1)),
        stdout=stdout[:_MAX_OUTPUT_BYTES],
        stderr=stderr[:_MAX_OUTPUT_BYTES],
        truncated=longer or status.get("out-truncated") is True or status.get("err-truncated") is True,
    )


def _bytes(value: object) -> bytes:
    if not isinstance(value, str):
        return b""
    try:
        return base64.b64decode(value)
    except (ValueError, binascii.Error):
        return b""
