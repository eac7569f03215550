"""The serial consoles of one runner's machines over gRPC."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

import grpc
from qcontroller.controller.v1 import console_pb2
from qcontroller.runner.v1 import runner_pb2 as pb
from qcontroller.runner.v1.runner_pb2_grpc import GuestServiceStub

from controller.adapters.peer import Peer
from controller.domain.console_talk import ConsoleCommand, ConsoleEnd, ConsoleNews, ConsoleViewer

# Whoever looks longer than that comes back at its offset.
_ATTACHED_S: Final = 24 * 3600.0


class ConsoleClient:
    """Implements `ConsoleAccess` for one node."""

    def __init__(self, peer: Peer, channel: grpc.aio.Channel) -> None:
        self._peer = peer
        self._stub = GuestServiceStub(channel)

    async def attach(
        self, machine_id: str, viewer: ConsoleViewer, commands: AsyncIterator[ConsoleCommand]
    ) -> AsyncGenerator[ConsoleNews | ConsoleEnd, None]:
        messages = _messages(machine_id, viewer, commands)
        call = self._stub.AttachMachineConsole(messages, timeout=_ATTACHED_S)
        async with aclosing(self._peer.messages(call, idle_s=None)) as told:
            async for message in told:
                news = message.news
                if news.WhichOneof("part") == "end":
                    yield ConsoleEnd(news.end.reason, news.end.detail, news.end.offset)
                else:
                    yield ConsoleNews(news.SerializeToString())


async def _messages(
    machine_id: str, viewer: ConsoleViewer, commands: AsyncIterator[ConsoleCommand]
) -> AsyncIterator[pb.AttachMachineConsoleRequest]:
    attach = pb.MachineConsoleAttach(
        machine_id=machine_id, viewer=console_pb2.ConsoleViewer.FromString(viewer)
    )
    yield pb.AttachMachineConsoleRequest(attach=attach)
    async for command in commands:
        yield pb.AttachMachineConsoleRequest(command=console_pb2.ConsoleCommand.FromString(command))
