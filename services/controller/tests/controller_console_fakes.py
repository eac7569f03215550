"""The consoles of a runner in memory."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from controller.domain.console_talk import ConsoleCommand, ConsoleEnd, ConsoleNews, ConsoleViewer
from qcontroller.controller.v1 import console_pb2 as pb


@dataclass
class FakeConsoles:
    """Implements `ConsoleAccess`: echoes input until it is told to end."""

    enter: Callable[[str], Awaitable[None]]
    viewers: list[pb.ConsoleViewer] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def attach(
        self, machine_id: str, viewer: ConsoleViewer, commands: AsyncIterator[ConsoleCommand]
    ) -> AsyncGenerator[ConsoleNews | ConsoleEnd, None]:
        await self.enter("attach")
        self.viewers.append(pb.ConsoleViewer.FromString(viewer))
        try:
            opened = pb.ConsoleOpened(offset=7, label=machine_id)
            yield ConsoleNews(pb.ConsoleNews(opened=opened).SerializeToString())
            async for command in commands:
                asked = pb.ConsoleCommand.FromString(command)
                yield ConsoleNews(pb.ConsoleNews(output=asked.input).SerializeToString())
                if asked.input == b"end":
                    break
            await self.over.wait()
            yield ConsoleEnd("STOPPED", "It was stopped.", 9)
        finally:
            self.gone.set()
