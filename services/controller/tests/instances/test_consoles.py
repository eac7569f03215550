"""Attached consoles: handed on to the runner and back, refused by state, ended with the reason."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from controller_fakes import Cloud, reason_of, refusal
from qcontroller.controller.v1 import console_pb2
from qcontroller.controller.v1 import instance_pb2 as pb


def attach(name: str = "web-1", **viewer: Any) -> pb.AttachConsoleRequest:
    return pb.AttachConsoleRequest(
        attach=pb.ConsoleAttach(name=name, viewer=console_pb2.ConsoleViewer(**viewer))
    )


def typed(text: bytes) -> pb.AttachConsoleRequest:
    return pb.AttachConsoleRequest(command=console_pb2.ConsoleCommand(input=text))


async def talk(*messages: pb.AttachConsoleRequest, open_end: bool = True) -> AsyncIterator[Any]:
    for message in messages:
        yield message
    if open_end:
        await asyncio.Event().wait()


async def refused(cloud: Cloud, *messages: pb.AttachConsoleRequest) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in cloud.instances.AttachConsole(talk(*messages), timeout=10):
            pass
    return reason_of(caught.value)[0]


async def test_commands_and_news_are_handed_on_unread(cloud: Cloud) -> None:
    instance = await cloud.launch()
    call = cloud.instances.AttachConsole(talk(attach(label="ada", offset=7), typed(b"ls\n")), timeout=10)
    stream = aiter(call)
    assert (await anext(stream)).news.opened == console_pb2.ConsoleOpened(offset=7, label=instance.id)
    assert (await anext(stream)).news.output == b"ls\n"
    (viewer,) = cloud.runner.consoles.viewers
    assert (viewer.label, viewer.offset, viewer.HasField("offset")) == ("ada", 7, True)
    call.cancel()
    await asyncio.wait_for(cloud.runner.consoles.gone.wait(), 10)


async def test_an_end_has_the_machines_reason(cloud: Cloud) -> None:
    await cloud.launch()
    cloud.runner.consoles.over.set()
    call = cloud.instances.AttachConsole(talk(attach(), typed(b"end")), timeout=10)
    last = [message.news async for message in call][-1]
    assert (last.end.reason, last.end.offset) == ("STOPPED", 9)


async def test_the_end_of_a_deleted_instance_says_so(cloud: Cloud) -> None:
    await cloud.launch()
    call = cloud.instances.AttachConsole(talk(attach(), typed(b"end")), timeout=30)
    stream = aiter(call)
    await anext(stream)
    await anext(stream)
    await cloud.ask("Delete", force=True)
    await cloud.gone()
    cloud.runner.consoles.over.set()
    assert (await anext(stream)).news.end.reason == "DELETED"


async def test_what_has_no_machine_is_not_attached_to(cloud: Cloud) -> None:
    assert await refused(cloud, attach()) == "INSTANCE_NOT_FOUND"
    await cloud.launch(start=False)
    assert await refused(cloud, attach()) == "INSTANCE_STATE_CONFLICT"


async def test_a_talk_that_does_not_begin_with_attaching_is_refused(cloud: Cloud) -> None:
    await cloud.launch()
    assert await refused(cloud, typed(b"ls")) == "FIELD_INVALID"


async def test_the_runners_refusal_is_the_callers(cloud: Cloud) -> None:
    await cloud.launch()
    cloud.runner.faults["attach"] = [refusal("CONSOLE_VIEWERS_EXHAUSTED")]
    assert await refused(cloud, attach()) == "CONSOLE_VIEWERS_EXHAUSTED"
