"""Three kinds of readers of one log, which hang up at random, while gateway and controller are killed."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import httpx
import pytest
from framework import guests
from framework.api_client import BlockingApiClient
from framework.cloud import Cloud, document
from framework.stack import Stack, running_stack
from qcontroller.controller.v1 import host_pb2
from qcontroller.controller.v1.host_pb2_grpc import EventServiceStub
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

pytestmark = pytest.mark.native("its readers hang up while services of a stack of its own are killed")

LAST: Final = "last"
# What a reader meets when its gateway or controller dies.
BROKEN: Final = (httpx.HTTPError, ConnectionClosed, InvalidHandshake, OSError, grpc.aio.AioRpcError)
Form = Callable[[Stack, str], AsyncGenerator[dict[str, Any], None]]


@pytest.fixture(scope="module")
def victim() -> Iterator[Stack]:
    """A stack of this module's own, which may be broken."""
    with running_stack("qc-watch-") as running:
        yield running


@pytest.fixture(scope="module")
def broken_cloud(victim: Stack) -> Iterator[Cloud]:
    """The breakable stack with the tiny image in it."""
    with BlockingApiClient(victim.base_url) as api:
        cloud = Cloud(victim, api)
        cloud.upload("tiny", guests.tiny())
        yield cloud


async def server_sent(stack: Stack, cursor: str) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the events after `cursor` as server-sent events."""
    headers = {"Last-Event-ID": cursor}
    async with (
        httpx.AsyncClient(base_url=stack.base_url, timeout=60) as client,
        client.stream("GET", "/v1/events", headers=headers) as response,
    ):
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


async def socket(stack: Stack, cursor: str) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the events after `cursor` from a WebSocket."""
    url = f"ws://127.0.0.1:{stack.layout.gateway_port}/v1/events?cursor={cursor}"
    async with connect(url) as connection:
        async for message in connection:
            event = json.loads(message)
            if event["type"] != "stream.opened":
                yield event


async def remote_call(stack: Stack, cursor: str) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the events after `cursor` from the controller's own port."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{stack.layout.controller_port}") as channel:
        stream = EventServiceStub(channel).WatchEvents(host_pb2.WatchEventsRequest(cursor=cursor))
        async for message in stream:
            event = message.event
            yield {
                "cursor": event.cursor,
                "type": event.type,
                "instance": event.instance,
                "operation": event.operation,
            }


@dataclass
class Reader:
    """Follows the log in one form until the last instance is gone."""

    form: Form
    cursor: str
    rng: random.Random
    seen: list[dict[str, Any]] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether the end has been seen."""
        return bool(self.seen) and is_end(self.seen[-1])

    async def follow(self, stack: Stack) -> None:
        """Read, hang up, come back after the last event."""
        while not self.done:
            with suppress(*BROKEN):
                await self._read(stack, self.rng.randint(1, 40))

    async def _read(self, stack: Stack, most: int) -> None:
        async with aclosing(self.form(stack, self.cursor)) as events:
            async for event in events:
                self.seen.append(event)
                self.cursor = event["cursor"]
                most -= 1
                if most == 0 or self.done:
                    return


async def test_each_form_tells_every_change_once_and_in_order_over_kills(
    victim: Stack, broken_cloud: Cloud
) -> None:
    start = await start_of(victim)
    readers = [
        Reader(form, start, random.Random(number))
        for number, form in enumerate((server_sent, socket, remote_call))
    ]
    following = [asyncio.create_task(reader.follow(victim)) for reader in readers]
    await asyncio.to_thread(broken_cloud.launch, "web-1", start=False)
    async with asyncio.TaskGroup() as group:
        group.create_task(relabel(victim, "web-1", 40))
        for service in ("gateway", "controller"):
            await asyncio.to_thread(victim.kill_and_wait_restarted, service)
    await asyncio.to_thread(broken_cloud.delete, "web-1")
    await asyncio.to_thread(broken_cloud.launch, LAST, start=False)
    await asyncio.to_thread(broken_cloud.delete, LAST)
    async with asyncio.timeout(60):
        await asyncio.gather(*following)
    log = await replay(victim, start)
    for reader in readers:
        assert [event["cursor"] for event in reader.seen] == log
    operations = operation_ids(broken_cloud, "web-1")
    told = Counter((event["type"], event["operation"]) for event in readers[0].seen)
    for kind in ("operation.created", "operation.finished"):
        assert {told[kind, operation] for operation in operations} == {1}


async def relabel(stack: Stack, name: str, times: int) -> None:
    """Change the labels again and again; what is refused while a service is away is no change."""
    async with httpx.AsyncClient(base_url=stack.base_url, timeout=30) as client:
        for number in range(times):
            with suppress(httpx.HTTPError):
                await client.patch(
                    f"/v1/instances/{name}",
                    json={"labels": {"n": str(number)}},
                    headers={"Prefer": "wait=20"},
                )


def is_end(event: dict[str, Any]) -> bool:
    """Return whether `event` is the one that the test ends with."""
    return (event["type"], event["instance"]) == ("instance.deleted", LAST)


async def start_of(stack: Stack) -> str:
    """Return the cursor of now."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{stack.layout.controller_port}") as channel:
        stream = EventServiceStub(channel).WatchEvents(host_pb2.WatchEventsRequest())
        return str(dict(await stream.initial_metadata())["qcontroller-cursor"])


async def replay(stack: Stack, start: str) -> list[str]:
    """Return the cursors of the whole log after `start`, read at one go."""
    cursors = []
    async with aclosing(remote_call(stack, start)) as events:
        async for event in events:
            cursors.append(event["cursor"])
            if is_end(event):
                return cursors
    raise AssertionError("the log ended early")


def operation_ids(cloud: Cloud, instance: str) -> list[str]:
    """Return the operations of `instance`."""
    response = cloud.api.request("GET", "/v1/operations", params={"instance": instance, "pageSize": 100})
    return [str(operation["id"]) for operation in document(response)["operations"]]
