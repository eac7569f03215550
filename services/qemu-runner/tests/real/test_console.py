"""The serial console of a real guest: typed into, watched by several, and what ends it."""

import asyncio
import contextlib
import re
import signal
import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from qcontroller.controller.v1 import console_pb2
from qcontroller.runner.v1 import runner_pb2 as pb
from runner_stack import DEADLINE_S, RunnerStack
from servicekit.rpc_errors import decode


class Attached:
    """A viewer: what it has been told, and the way to ask."""

    def __init__(self, stack: RunnerStack, machine_id: str, **viewer: Any) -> None:
        self._asked: asyncio.Queue[pb.AttachMachineConsoleRequest] = asyncio.Queue()
        attach = pb.MachineConsoleAttach(machine_id=machine_id, viewer=console_pb2.ConsoleViewer(**viewer))
        self._asked.put_nowait(pb.AttachMachineConsoleRequest(attach=attach))
        self.call = stack.guests.AttachMachineConsole(self._requests(), timeout=10 * DEADLINE_S)
        self.output = b""
        self.offset = 0

    async def _requests(self) -> AsyncIterator[pb.AttachMachineConsoleRequest]:
        while True:
            yield await self._asked.get()

    def ask(self, **command: Any) -> None:
        request = pb.AttachMachineConsoleRequest(command=console_pb2.ConsoleCommand(**command))
        self._asked.put_nowait(request)

    def type(self, text: str) -> None:
        self.ask(input=text.encode())

    async def news(self) -> console_pb2.ConsoleNews:
        async with asyncio.timeout(DEADLINE_S):
            async for message in self.call:
                news: console_pb2.ConsoleNews = message.news
                match news.WhichOneof("part"):
                    case "opened":
                        self.offset = news.opened.offset
                    case "output":
                        self.output += news.output
                        self.offset += len(news.output)
                return news
        raise AssertionError("the stream ended")

    async def until(self, part: str) -> Any:
        while (news := await self.news()).WhichOneof("part") != part:
            pass
        return getattr(news, part)

    async def until_match(self, pattern: bytes) -> "re.Match[bytes]":
        while (found := re.search(pattern, self.output)) is None:
            await self.news()
        return found

    async def run(self, command: str) -> bytes:
        """Type a command; return what it printed, and what the guest's kernel did meanwhile."""
        mark = uuid.uuid4().hex
        self.type(f"echo {mark[:8]}''{mark[8:]}; {command}; echo {mark[8:]}''{mark[:8]}\n")
        begin, end = mark.encode(), (mark[8:] + mark[:8]).encode()
        found = await self.until_match(begin + rb"\r\n(?s:(.*?))" + end)
        return found[1]


@contextlib.asynccontextmanager
async def attached(stack: RunnerStack, machine_id: str, **viewer: Any) -> AsyncIterator[Attached]:
    one = Attached(stack, machine_id, **viewer)
    try:
        yield one
    finally:
        one.call.cancel()


@pytest.fixture
async def machine_id(stack: RunnerStack) -> AsyncIterator[str]:
    machine_id = str(uuid.uuid4())
    await stack.prepare(machine_id, stack.spec())
    await stack.start(machine_id)
    await stack.until_agent(machine_id, within_s=240)
    yield machine_id
    await stack.delete(machine_id)


async def test_a_console_is_typed_into_resized_watched_and_outlives_the_runner(
    stack: RunnerStack, machine_id: str
) -> None:
    async with (
        attached(stack, machine_id, write=True, label="ada") as ada,
        attached(stack, machine_id, label="eve") as eve,
    ):
        # Two see what one types.
        assert b"Linux" in await ada.run("uname -s")
        await eve.until_match(rb"Linux\r\n")
        # Much at once, and every byte of it once and in order, here as in the log.
        text = "~" * 500
        for _ in range(4):
            assert (await ada.run(f"echo {text}")).count(b"~") == 500
        # One writer.
        eve.type("echo no\n")
        assert (await eve.until("input_refused")).reason == "NOT_THE_WRITER"
        eve.ask(role=console_pb2.ConsoleRoleRequest(take=True, force=True))
        while not (await eve.until("role")).writer:
            pass
        while not (await ada.until("role")).lost:
            pass
        # The size reaches the terminal.
        eve.ask(resize=console_pb2.ConsoleResize(columns=101, rows=37))
        resized = await eve.until("resized")
        assert resized.applied, resized.detail
        assert b"37 101\r\n" in await eve.run("stty size")
        # A reboot of the guest ends nobody's session.
        eve.output = b""
        eve.type("reboot\n")
        await eve.until_match(rb"Linux version")
        await eve.until_match(rb"qcontroller-phase: agent")

        # The runner is killed while they are attached; the guest talks on and no byte is missing.
        await ada.until_match(rb"qcontroller-phase: agent")
        eve.type("i=0; while [ $i -lt 2000 ]; do echo count-$i; i=$((i+1)); done\n")
        await eve.until_match(rb"count-20\r\n")
        await stack.kill(stack.runner)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await eve.until("end")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await stack.start_runner()
    await stack.until(machine_id, lambda machine: machine.run_state == "running")
    async with attached(stack, machine_id, write=True, offset=eve.offset) as back:
        back.output = eve.output
        await back.until_match(rb"count-1999\r\n")
        counts = [int(number) for number in re.findall(rb"count-(\d+)\r\n", back.output)]
        assert counts == list(range(2000))
        assert back.offset - eve.offset == len(back.output) - len(eve.output)
        # It ends with the machine, and says why.
        back.type("poweroff\n")
        end = await back.until("end")
        assert (end.reason, end.offset) == ("GUEST_SHUTDOWN", back.offset)


async def test_a_session_ends_with_the_runners_own_stop_too(stack: RunnerStack, machine_id: str) -> None:
    async with attached(stack, machine_id) as viewer:
        await viewer.until("opened")
        await stack.kill(stack.runner, signal.SIGTERM)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await viewer.until("end")
        assert caught.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    await stack.start_runner()
    await stack.until(machine_id, lambda machine: machine.run_state == "running")
    async with attached(stack, machine_id) as viewer:
        await viewer.until("opened")
        await stack.stop(machine_id, force=True)
        assert (await viewer.until("end")).reason == "STOPPED"
    async with attached(stack, machine_id) as viewer:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await viewer.news()
    assert decode(caught.value).reason == "MACHINE_STATE_CONFLICT"
