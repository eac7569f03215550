"""One attempt of a probe that no event tells of: a connection, a GET, a program. Bounded in bytes and time.

What comes back is the guest's word: it is cut, and never followed anywhere.

Sources: RFC 9110 and RFC 9112 (status line).
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from qemu_runner.domain.probe import CloudInit, CloudInitState, Probe
from qemu_runner.errors import GuestError
from qemu_runner.guest_agent.client import ExecResult

CONNECT_S: Final = 2.0
_HTTP_S: Final = 5.0
_EXEC_S: Final = 30.0
_READ_S: Final = 5.0
# passt accepts before it asks the guest, and resets once the guest has not answered for ten seconds.
_FORWARDED_SILENCE_S: Final = 11.0
_STATUS_LINE_BYTES: Final = 1024
_RESULT_BYTES: Final = 64 * 1024
_MAX_ERRORS: Final = 16
_MAX_TEXT: Final = 200
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)(?: |\r?\n|$)")
_RESULT_FILE: Final = "/run/cloud-init/result.json"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a port of the guest is reached.

    Attributes:
        host: The guest's own address, or this host's.
        port: Its port, or the published one.
        forwarded: Whether somebody accepts in the guest's place.
    """

    host: str
    port: int
    forwarded: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """What an attempt has shown; `evidence` has no numbers that differ between equal attempts."""

    holds: bool
    evidence: str


class Agent(Protocol):
    """What runs programs in the guest."""

    async def execute(
        self, argv: tuple[str, ...], env: dict[str, str], stdin: bytes, timeout_s: float
    ) -> ExecResult:
        """Run a program and wait for its end; raises GuestError."""


async def connects(target: Target) -> Seen:
    """Tell whether something accepts connections there."""
    try:
        async with _connection(target) as (reader, _):
            if not target.forwarded:
                return Seen(True, "accepted a connection")
            return await _kept(reader)
    except (OSError, TimeoutError) as exc:
        return Seen(False, _why(exc))


async def answers(target: Target, probe: Probe) -> Seen:
    """Tell whether a GET is answered with the status that is asked."""
    authority = f"[{target.host}]" if ":" in target.host else target.host
    request = (
        f"GET {probe.path} HTTP/1.1\r\nHost: {authority}:{probe.port}\r\n"
        "User-Agent: qcontroller\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    try:
        async with asyncio.timeout(_HTTP_S), _connection(target) as (reader, writer):
            writer.write(request.encode("ascii"))
            await writer.drain()
            line = await _first_line(reader)
    except (OSError, TimeoutError) as exc:
        return Seen(False, _why(exc))
    match = _STATUS.match(line)
    if match is None:
        return Seen(False, "what it answers is no HTTP/1.1" if line else "closed without an answer")
    status = int(match[1])
    wanted = status == probe.status if probe.status else 200 <= status <= 299
    return Seen(wanted, f"answered {status}")


async def exits(agent: Agent, probe: Probe) -> Seen:
    """Tell whether the program ends with the code that is asked."""
    try:
        result = await agent.execute(probe.argv, {}, b"", _EXEC_S)
    except GuestError as exc:
        return Seen(False, _printable(str(exc)))
    said = _printable((result.stderr or result.stdout).decode("utf-8", "replace").strip())
    evidence = f"exit code {result.exit_code}" + (f": {said}" if said else "")
    return Seen(result.exit_code == probe.exit_code, evidence)


async def cloud_init_result(agent: Agent) -> CloudInitState | None:
    """Return how cloud-init ended, None where its result is not (yet) there.

    Source: cloud-init's `result.json`, written once, when its last stage has ended.
    """
    try:
        result = await agent.execute(("/bin/cat", _RESULT_FILE), {}, b"", _READ_S)
    except GuestError:
        return None
    if result.exit_code:
        return None
    try:
        document = json.loads(result.stdout[:_RESULT_BYTES])
    except (ValueError, RecursionError):
        return None
    errors = _errors(document)
    if errors is None:
        return None
    if errors:
        return CloudInitState(CloudInit.ERROR, "; ".join(errors))
    return CloudInitState(CloudInit.DONE)


def _errors(document: Any) -> list[str] | None:
    stage = document.get("v1") if isinstance(document, dict) else None
    errors = stage.get("errors") if isinstance(stage, dict) else None
    if not isinstance(errors, list):
        return None
    return [_printable(str(error)) for error in errors[:_MAX_ERRORS]]


@asynccontextmanager
async def _connection(target: Target) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with asyncio.timeout(CONNECT_S):
        reader, writer = await asyncio.open_connection(target.host, target.port, limit=_STATUS_LINE_BYTES)
    try:
        yield reader, writer
    finally:
        # Nothing more is sent or wanted; a guest that does not close is not waited for.
        writer.transport.abort()


async def _kept(reader: asyncio.StreamReader) -> Seen:
    """Wait for the guest's word or for the reset that stands for its silence."""
    try:
        async with asyncio.timeout(_FORWARDED_SILENCE_S):
            first = await reader.read(1)
    except TimeoutError:
        return Seen(True, "kept a connection")
    return Seen(True, "accepted a connection and spoke") if first else Seen(False, "closed at once")


async def _first_line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as exc:
        return exc.partial
    except asyncio.LimitOverrunError:
        # Whatever it is, it is no status line.
        return b"?"


def _why(exc: OSError | TimeoutError) -> str:
    match exc:
        case ConnectionRefusedError():
            return "connection refused"
        case ConnectionResetError():
            return "connection reset"
        case TimeoutError():
            return "no answer in time"
        case _:
            return _printable(exc.strerror or "cannot be reached")


def _printable(text: str) -> str:
    return "".join(character for character in text[:_MAX_TEXT] if character.isprintable())
