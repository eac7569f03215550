"""Watchers of the event log, through the service's socket."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from controller.operations import Gap, ReaderTooSlow
from controller.operations.cursor import Cursor, decode
from controller.operations.feed import Tail
from controller.operations.rows import events
from controller.problems import translate
from controller.servicers.event_servicer import CURSOR_KEY, EventServicer
from controller_fakes import Cloud, FakeRunner, FakeStore, pointers_of, reason_of, running_cloud
from google.protobuf import json_format
from prometheus_client import CollectorRegistry
from qcontroller.controller.v1 import host_pb2
from qcontroller.controller.v1.host_pb2_grpc import EventServiceStub, add_EventServiceServicer_to_server
from servicekit.server import grpc_server
from sqlalchemy import select

LAST = "last"
LIVES = 3


@dataclass
class Watcher:
    """Follows the log, hanging up and coming back at random moments, over restarts of the service too."""

    cursor: str
    rng: random.Random
    instances: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    seen: list[Any] = field(default_factory=list)
    connections: int = 0

    async def follow(self, stub: Any) -> None:
        """Follow until the last instance is gone."""
        while not (self.seen and (self.seen[-1].type, self.seen[-1].instance) == ("instance.deleted", LAST)):
            self.connections += 1
            with suppress(grpc.aio.AioRpcError):
                await self._read(stub, self.rng.randint(1, 40))

    async def _read(self, stub: Any, most: int) -> None:
        request = host_pb2.WatchEventsRequest(cursor=self.cursor, instances=self.instances, types=self.types)
        stream = stub.WatchEvents(request, wait_for_ready=True)
        try:
            async for message in stream:
                self.seen.append(message.event)
                self.cursor = message.event.cursor
                most -= 1
                if most == 0 or message.event.instance == LAST:
                    return
        finally:
            stream.cancel()

    def wants(self, kind: str, name: str) -> bool:
        """Return whether an event of the log passes the watcher's filter."""
        return (not self.types or kind in self.types) and (not self.instances or name in self.instances)


@pytest.mark.parametrize("seed", range(2))
async def test_every_watcher_sees_the_log_once_and_in_order(tmp_path: Path, seed: int) -> None:
    """Whatever disconnects when: readers at random, the service twice while it works."""
    rng = random.Random(seed)
    runner, store = FakeRunner(), FakeStore()
    options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100)]
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/c.sock", options=options) as channel:
        stub = EventServiceStub(channel)
        start, watchers = "", list[Watcher]()
        tasks: list[asyncio.Task[None]] = []
        for life in range(LIVES):
            async with running_cloud(tmp_path, runner, store) as cloud:
                if life == 0:
                    start = await start_of(cloud)
                    watchers = watching(start, seed)
                    tasks = [asyncio.create_task(watcher.follow(stub)) for watcher in watchers]
                async with asyncio.TaskGroup() as group:
                    for number in range(3):
                        group.create_task(busy(cloud, f"vm-{number}", random.Random(rng.random())))
                if life == LIVES - 1:
                    await cloud.launch(LAST, start=False)
                    await cloud.done(await cloud.ask("Delete", LAST))
                    async with asyncio.timeout(20):
                        await asyncio.gather(*tasks)
                    log = await log_of(cloud, start)
    for watcher in watchers:
        wanted = [rev for rev, kind, name in log if watcher.wants(kind, name)]
        assert [decode(event.cursor)[1].rev for event in watcher.seen] == wanted
    assert min(watcher.connections for watcher in watchers) >= LIVES


def watching(start: str, seed: int) -> list[Watcher]:
    """Return watchers of everything, of some instances, of some types, of both."""
    instances, types = ("vm-1", LAST), ("instance.deleted", "instance.updated", "operation.finished")
    filters = [((), ()), ((), ()), (instances, ()), ((), types), (instances, types)]
    return [
        Watcher(start, random.Random(f"{seed}-{number}"), *chosen) for number, chosen in enumerate(filters)
    ]


async def busy(cloud: Cloud, name: str, rng: random.Random) -> None:
    """Give one instance six requests; what its state forbids is refused, which is no change."""
    for number in range(6):
        with suppress(grpc.aio.AioRpcError):
            match rng.choice(("launch", "Start", "Stop", "Update", "Update", "Pause", "Delete")):
                case "launch":
                    await cloud.launch(name, start=rng.random() < 0.5)
                case "Update":
                    await cloud.ended(
                        (await cloud.ask("Update", name, labels={"n": str(number)})).operation.id
                    )
                case "Delete" | "Stop" as verb:
                    await cloud.ended((await cloud.ask(verb, name, force=True)).operation.id)
                case verb:
                    await cloud.ended((await cloud.ask(verb, name)).operation.id)


async def start_of(cloud: Cloud) -> str:
    """Return the cursor of now, which the initial metadata tells."""
    stream = cloud.events.WatchEvents(host_pb2.WatchEventsRequest())
    found = str(dict(await stream.initial_metadata())[CURSOR_KEY])
    stream.cancel()
    return found


async def log_of(cloud: Cloud, start: str) -> list[tuple[int, str, str]]:
    """Return position, type and instance of every event after `start`, up to the last instance's deletion."""
    query = select(events.c.rev, events.c.type, events.c.data).order_by(events.c.rev)
    after = query.where(events.c.rev > decode(start)[1].rev)
    rows = await cloud.database.read(lambda conn: conn.execute(after).all())
    found = [(row.rev, row.type, row.data.get("instance", row.data.get("subjectName", ""))) for row in rows]
    return found[: 1 + next(i for i, row in enumerate(found) if row[1:] == ("instance.deleted", LAST))]


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    async with running_cloud(tmp_path) as found:
        yield found


async def test_a_watch_tells_where_it_starts_before_anything_happens(cloud: Cloud) -> None:
    start = await start_of(cloud)
    await cloud.launch(start=False)
    stream = cloud.events.WatchEvents(host_pb2.WatchEventsRequest(cursor=start))
    assert (await anext(stream.__aiter__())).event.type == "instance.created"
    stream.cancel()


async def test_a_type_that_no_event_has_is_refused_with_its_place(cloud: Cloud) -> None:
    request = host_pb2.WatchEventsRequest(types=["instance.created", "instance.exploded"])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(cloud.events.WatchEvents(request).__aiter__())
    assert pointers_of(caught.value) == {"/types/1"}


async def test_a_launch_tells_its_address_with_the_first_event(cloud: Cloud) -> None:
    cloud.runner.set_aside = ("10.76.0.9",)
    start = await start_of(cloud)
    instance = await cloud.launch(start=False)
    stream = cloud.events.WatchEvents(host_pb2.WatchEventsRequest(cursor=start))
    created = json_format.MessageToDict((await anext(stream.__aiter__())).event.resource)["status"]
    stream.cancel()
    assert created["nics"][0]["addresses"] == [
        {"address": "10.76.0.9", "family": "ipv4", "source": "reserved"}
    ]
    assigned = next(one for one in created["conditions"] if one["type"] == "AddressAssigned")
    assert (assigned["status"], assigned["reason"]) == ("TRUE", "AddressReserved")
    assert [nic.planned for nic in cloud.runner.specs[instance.id].nics] == ["10.76.0.9"]


async def test_an_events_operation_shows_nothing_that_came_later(cloud: Cloud) -> None:
    start = await start_of(cloud)
    await cloud.launch(start=False)
    stream = cloud.events.WatchEvents(host_pb2.WatchEventsRequest(cursor=start, types=["operation.created"]))
    resource = json_format.MessageToDict((await anext(stream.__aiter__())).event.resource)
    stream.cancel()
    assert resource["state"] == "PENDING"
    assert "endTime" not in resource


async def test_a_service_that_stops_ends_its_watches_and_says_so(tmp_path: Path) -> None:
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/c.sock") as channel:
        async with running_cloud(tmp_path):
            stream = EventServiceStub(channel).WatchEvents(host_pb2.WatchEventsRequest())
            await stream.initial_metadata()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(stream.__aiter__())
    assert reason_of(caught.value)[0] == "CONTROLLER_UNAVAILABLE"


class CutShort:
    """An engine whose feed has given up its only reader."""

    def __init__(self) -> None:
        self.feed = self

    async def tail(self, *_: Any) -> Tail:
        async def items() -> AsyncGenerator[Gap, None]:
            yield Gap(Cursor("c9"), ReaderTooSlow(7))

        return Tail(Cursor("c1"), items())


async def test_a_reader_that_is_cut_is_told_by_an_event_and_by_the_status(tmp_path: Path) -> None:
    async with serving(tmp_path, CutShort()) as stub:
        stream = stub.WatchEvents(host_pb2.WatchEventsRequest())
        gap = (await anext(stream.__aiter__())).event
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(stream.__aiter__())
    assert (gap.type, gap.cursor, dict(gap.resource)["reason"]) == ("stream.gap", "c9", "READER_TOO_SLOW")
    assert reason_of(caught.value)[0] == "READER_TOO_SLOW"


@asynccontextmanager
async def serving(path: Path, engine: Any) -> AsyncIterator[Any]:
    """Serve the events of `engine` as the service does."""
    target = f"unix:{path}/e.sock"
    services = [("events", lambda s: add_EventServiceServicer_to_server(EventServicer(engine), s))]
    async with (
        grpc_server([target], services=services, translate=translate, registry=CollectorRegistry()),
        grpc.aio.insecure_channel(target) as channel,
    ):
        yield EventServiceStub(channel)
