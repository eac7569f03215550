"""A guest agent that does what a test's script says, on a unix socket as QEMU's chardev would serve it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from qemu_runner.guest_agent.channel import AgentChannel
from qemu_runner.guest_agent.client import GuestAgent
from qemu_runner.store.guest_ledger import GuestLedger

Answer = Callable[[dict[str, Any], asyncio.StreamWriter], Awaitable[None]]
Session = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def reply(writer: asyncio.StreamWriter, document: object) -> None:
    """Answer a command."""
    writer.write(json.dumps(document).encode() + b"\n")


async def echo(command: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    """Return the command's own name."""
    reply(writer, {"return": command["execute"]})


def refusing(description: str) -> Answer:
    """Make an agent that refuses every command."""

    async def answer(_command: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        reply(writer, {"error": {"class": "GenericError", "desc": description}})

    return answer


def telling(answers: Mapping[str, object]) -> Answer:
    """Make an agent that returns what stands under a command's name, and knows no other command."""

    async def answer(command: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        name = command["execute"]
        if name in answers:
            reply(writer, {"return": answers[name]})
        else:
            reply(writer, {"error": {"class": "CommandNotFound", "desc": f"{name} is unknown"}})

    return answer


@asynccontextmanager
async def agent(tmp_path: Path, answer: Answer) -> AsyncIterator[Path]:
    """Serve an agent that synchronises properly and leaves the rest to `answer`."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            command = json.loads(line.lstrip(b"\xff"))
            if command["execute"] == "guest-sync-delimited":
                writer.write(b"\xff")
                reply(writer, {"return": command["arguments"]["id"]})
            else:
                await answer(command, writer)

    async with port(tmp_path, converse) as path:
        yield path


@asynccontextmanager
async def port(tmp_path: Path, session: Session) -> AsyncIterator[Path]:
    """Serve a port behind which `session` does what it likes; each client gets one."""
    path = tmp_path / "agent"
    handlers: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        try:
            await session(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    # What one exec's input makes is one line.
    server = await asyncio.start_unix_server(serve, str(path), limit=4 * 2**20)
    try:
        yield path
    finally:
        server.close()
        for task in handlers:
            task.cancel()
        if handlers:
            await asyncio.wait(handlers)


@asynccontextmanager
async def channel(path: Path) -> AsyncIterator[AgentChannel]:
    """Open a channel to the agent."""
    opened = await AgentChannel.open(path, deadline_s=1)
    try:
        yield opened
    finally:
        await opened.close()


@asynccontextmanager
async def client(path: Path) -> AsyncIterator[GuestAgent]:
    """Open a client of the agent."""
    opened = await GuestAgent.connect(path, GuestLedger(path.with_name("in-guest"), lambda: None))
    try:
        yield opened
    finally:
        await opened.close()
