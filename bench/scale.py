"""Compare 1,000 and 10,000 instances with 100: lists, filters, restart, memory, in the real controller.

The runner is the fake one of tests/chaos: machines without QEMU, in this process; the controller is its own.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/chaos"))

from killmatrix.population import instance_id
from killmatrix.world import World
from qcontroller.controller.v1 import host_pb2
from qcontroller.controller.v1 import instance_pb2 as pb

DEVIATIONS = 10
PAGE = 100
DEADLINE_S = 300.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured with so many instances; milliseconds, and KiB of resident memory."""

    count: int
    first_page: float
    last_page: float
    rare_label: float
    rare_state: float
    answers: float
    reconciled: float
    one_event: float
    rss_kib: int


async def measured(count: int, rounds: int) -> Figures:
    async with World(slots=8, population=count) as world:
        client = world.client
        await until(world, lambda: all_seen(world))
        stops = [instance_id(number) for number in range(0, count, max(1, count // DEVIATIONS))][:DEVIATIONS]
        began = await restarted(world, stops)
        await client.first_page(page_size=1)
        answers = time.monotonic() - began
        failed = pb.INSTANCE_STATE_FAILED
        await until(world, lambda: shows(world, failed, len(stops)))
        reconciled = time.monotonic() - began
        last = await last_token(world)
        return Figures(
            count,
            await median(rounds, lambda: client.first_page(page_size=PAGE)),
            await median(rounds, lambda: client.first_page(page_size=PAGE, page_token=last)),
            await median(rounds, lambda: client.first_page(labels=["rare=yes"])),
            await median(rounds, lambda: client.first_page(states=[failed])),
            answers * 1000,
            reconciled * 1000,
            await median(rounds, lambda: one_event(world, instance_id(count // 2 + 1))),
            resident_kib(world.controller.pid),
        )


async def restarted(world: World, stops: list[str]) -> float:
    """Kill the controller, end some machines behind its back; return when the next one was started."""
    started: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def died() -> None:
        for one in stops:
            world.host.end(one, "QEMU_EXITED", signal=9)
        started.set_result(time.monotonic())

    world.died = died
    world.controller.kill()
    return await started


async def all_seen(world: World) -> bool:
    """Tell whether the runner's snapshot has been taken over."""
    nodes = await world.client.nodes.ListNodes(host_pb2.ListNodesRequest(), timeout=30)
    return bool(nodes.nodes[0].state == host_pb2.NODE_STATE_READY)


async def shows(world: World, state: pb.InstanceState.ValueType, count: int) -> bool:
    return len(await world.client.first_page(states=[state])) == count


async def last_token(world: World) -> str:
    """Return the token of the last page of the list."""
    token = last = ""
    while True:
        request = pb.ListInstancesRequest(page_size=PAGE, page_token=token)
        token = (await world.client.instances.ListInstances(request, timeout=30)).next_page_token
        if not token:
            return last
        last = token


async def one_event(world: World, machine_id: str) -> None:
    """Have one guest pause and wait until a watcher is told."""
    machine = world.host.machines[machine_id]
    goal = "paused" if machine.run_state == "running" else "running"
    stream = world.client.events.WatchEvents(host_pb2.WatchEventsRequest())
    await stream.initial_metadata()
    world.host.run_state(machine_id, goal, 0, "")
    async with asyncio.timeout(DEADLINE_S):
        async for message in stream:
            if message.event.type == "instance.updated":
                break
    stream.cancel()


async def until(world: World, holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask at every event of the controller until it is so."""
    async with asyncio.timeout(DEADLINE_S):
        stream = world.client.events.WatchEvents(host_pb2.WatchEventsRequest(), wait_for_ready=True)
        await stream.initial_metadata()
        while not await holds():
            await stream.read()
        stream.cancel()


async def median(rounds: int, work: Callable[[], Awaitable[object]]) -> float:
    taken = []
    for _ in range(rounds):
        began = time.monotonic()
        await work()
        taken.append(time.monotonic() - began)
    return statistics.median(taken) * 1000


def resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError(f"no memory is told of {pid}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=(100, 1000, 10_000))
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    figures = [asyncio.run(measured(count, arguments.rounds)) for count in arguments.sizes]
    sizes = " → ".join(f"{each.count}" for each in figures)
    print(f"instances: {sizes}, {os.cpu_count()} CPUs; ratios are to the first")
    for name, title in (
        ("first_page", f"first page of {PAGE}"),
        ("last_page", f"last page of {PAGE}"),
        ("rare_label", "filter by a label that 10 have"),
        ("rare_state", "filter by a state that 10 are in"),
        ("one_event", "one machine's change → the watcher"),
        ("answers", "killed → answers"),
        ("reconciled", f"killed → {DEVIATIONS} machines that had ended meanwhile are FAILED"),
    ):
        values = [getattr(each, name) for each in figures]
        told = " → ".join(f"{value:.1f}" for value in values)
        ratios = ", ".join(f"{value / values[0]:.1f}" for value in values[1:])
        print(f"{title}: {told} ms; ratio {ratios}")
    grown = (figures[-1].rss_kib - figures[0].rss_kib) / (figures[-1].count - figures[0].count)
    told = " → ".join(f"{each.rss_kib / 1024:.0f}" for each in figures)
    print(f"memory: {told} MiB; {grown:.1f} KiB for each further instance")


if __name__ == "__main__":
    main()
