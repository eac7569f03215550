"""Two controllers on one database; one of them or the database is struck: nothing twice, nothing lost."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from controller_databases import server
from killmatrix import truth
from killmatrix.pair import Pair
from qcontroller.controller.v1 import host_pb2, operation_pb2
from qcontroller.controller.v1 import instance_pb2 as pb
from qcontroller.event.v1 import event_pb2

pytestmark = pytest.mark.postgres

MACHINES = 4
# Past the lease, and past the pause between two looks for what others have left.
PAST_THE_LEASE_S = 13.0
SUCCEEDED = operation_pb2.OPERATION_STATE_SUCCEEDED


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with Pair(server(), slots=4) as pair:
        yield pair


async def nothing(pair: Pair) -> None:
    del pair


async def one_is_killed(pair: Pair) -> None:
    await pair.kill(0)
    pair.controllers[0].start()


async def one_is_killed_for_good(pair: Pair) -> None:
    """The other one alone has to end what it had begun."""
    await pair.kill(0)
    await asyncio.sleep(PAST_THE_LEASE_S)
    pair.controllers[0].start()


async def one_is_frozen_past_its_lease(pair: Pair) -> None:
    pair.freeze(0)
    await asyncio.sleep(PAST_THE_LEASE_S)
    pair.thaw(0)


async def all_connections_end(pair: Pair) -> None:
    for _ in range(5):
        await asyncio.to_thread(pair.server.end_connections, pair.database)
        await asyncio.sleep(0.2)


async def the_server_stops_at_once_and_comes_back(pair: Pair) -> None:
    await asyncio.to_thread(pair.server.stop)
    await asyncio.sleep(0.5)
    await asyncio.to_thread(pair.server.start)


@pytest.mark.parametrize(
    "strike",
    [
        nothing,
        one_is_killed,
        pytest.param(one_is_killed_for_good, marks=pytest.mark.full),
        one_is_frozen_past_its_lease,
        all_connections_end,
        the_server_stops_at_once_and_comes_back,
    ],
)
async def test_no_operation_acts_twice_and_none_is_lost(
    pair: Pair, strike: Callable[[Pair], Awaitable[None]]
) -> None:
    start = await cursor(pair)
    async with asyncio.TaskGroup() as group:
        work = [group.create_task(live(pair, number)) for number in range(MACHINES)]
        await begun(pair)
        await strike(pair)
    ended = [operation for task in work for operation in task.result()]
    assert {operation.state for operation in ended} == {SUCCEEDED}, ended
    instances = await at_rest(pair)
    assert truth.double_actions(pair.host.journal) == []
    assert truth.left_over(instances, pair.host, pair.store.pins) == []
    assert truth.missing(instances, pair.host, pair.store.pins) == []
    logs = [await log(pair, number, start, {operation.id for operation in ended}) for number in (0, 1)]
    assert logs[0] == logs[1]
    finishes = Counter(operation for kind, operation in logs[0] if kind == "operation.finished")
    assert {operation.id: finishes[operation.id] for operation in ended} == {
        operation.id: 1 for operation in ended
    }


async def live(pair: Pair, number: int) -> list[operation_pb2.Operation]:
    """Carry one machine through its life, asking the controllers in turn; every other one is deleted."""
    name, ended = f"vm-{number}", []
    verbs = ["launch", "pause", "resume", "force-stop", "start", "force-delete" if number % 2 else "stop"]
    for turn, verb in enumerate(verbs):
        asked, other = pair.clients[(number + turn) % 2], pair.clients[(number + turn + 1) % 2]
        operation = (await asked.ask(verb, name, f"{name}-{turn}")).operation
        while not operation.HasField("end_time"):
            operation = await other.ended(operation.id)
        ended.append(operation)
    return ended


async def begun(pair: Pair) -> None:
    """Wait until the runner has something to do."""
    reached = asyncio.Event()
    slow = pair.runner.faults.observer

    def observe(point: str, machine_id: str) -> Awaitable[None] | None:
        if point == "start.before":
            reached.set()
        return None if slow is None else slow(point, machine_id)

    pair.runner.faults.observer = observe
    await reached.wait()


async def at_rest(pair: Pair) -> list[pb.Instance]:
    """Wait until both controllers show what the host is like."""
    async with asyncio.timeout(60):
        while True:
            shown = [await client.list() for client in pair.clients]
            if not any(truth.disagreements(instances, pair.host) for instances in shown):
                return shown[0]
            # Nobody tells when both have caught up.
            await asyncio.sleep(0.2)


async def cursor(pair: Pair) -> str:
    """Return a place in the log before everything that is to come."""
    stream = pair.clients[0].events.WatchEvents(host_pb2.WatchEventsRequest(), wait_for_ready=True)
    try:
        return str(dict(await stream.initial_metadata())["qcontroller-cursor"])
    finally:
        stream.cancel()


async def events(pair: Pair, number: int, start: str) -> AsyncIterator[event_pb2.Event]:
    stream = pair.clients[number].events.WatchEvents(
        host_pb2.WatchEventsRequest(cursor=start), wait_for_ready=True
    )
    try:
        async for answer in stream:
            if answer.HasField("event"):
                yield answer.event
    finally:
        stream.cancel()


async def log(pair: Pair, number: int, start: str, last: set[str]) -> list[tuple[str, str]]:
    """Return the log as one controller tells it, from `start` until all of `last` have ended."""
    told: list[tuple[str, str]] = []
    missing = set(last)
    async with asyncio.timeout(60):
        async for event in events(pair, number, start):
            told.append((event.type, event.operation))
            if event.type == "operation.finished":
                missing.discard(event.operation)
            if not missing:
                return told
    return told
