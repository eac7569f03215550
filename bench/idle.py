"""Compare what an idle controller of 1,000 machines costs with asking for each of them once a second.

The runner is the fake one of tests/chaos: machines without QEMU, in this process. The controller is a process
of its own, and so is the poller: nothing but the controller's client of the runner, asking in turn.
"""

import argparse
import asyncio
import multiprocessing
import os
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/chaos"))

import grpc
from controller.adapters.runner_client import RunnerClient
from killmatrix.population import instance_id
from killmatrix.world import World
from scale import all_seen, until

SETTLED_BELOW = 0.05
SETTLE_S = 60.0
AT_ONCE = 8
TICKS = os.sysconf("SC_CLK_TCK")


async def measured(count: int, seconds: float) -> tuple[float, float, float]:
    """Return the CPUs that the idle controller and the poller take, and how often each machine was asked."""
    async with World(slots=8, population=count) as world:
        await until(world, lambda: all_seen(world))
        await settled(world.controller.pid)
        idle = await load(world.controller.pid, seconds)
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        poller = context.Process(target=poll, args=(world.to_runner.target, count, seconds, theirs))
        poller.start()
        try:
            polling, per_second = await asyncio.to_thread(ours.recv)
        finally:
            poller.join()
        return idle, polling, per_second


async def settled(pid: int) -> None:
    """Wait until what came with the start is over; a controller that never rests is measured as it is."""
    give_up = time.monotonic() + SETTLE_S
    while await load(pid, 1.0) > SETTLED_BELOW and time.monotonic() < give_up:
        continue


async def load(pid: int, seconds: float) -> float:
    """Return how many CPUs a process takes."""
    began, before = time.monotonic(), cpu_seconds(pid)
    await asyncio.sleep(seconds)
    return (cpu_seconds(pid) - before) / (time.monotonic() - began)


def cpu_seconds(pid: int) -> float:
    # After the name, which may hold anything: utime and stime are fields 14 and 15 (proc(5)).
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def poll(target: str, count: int, seconds: float, answer: Connection) -> None:
    answer.send(asyncio.run(polled(target, count, seconds)))


async def polled(target: str, count: int, seconds: float) -> tuple[float, float]:
    async with grpc.aio.insecure_channel(target) as channel:
        runner = RunnerClient("node-1", channel)
        ids = [instance_id(number) for number in range(count)]
        slots = asyncio.Semaphore(AT_ONCE)

        async def look(machine_id: str) -> None:
            async with slots:
                await runner.get(machine_id)

        await look(ids[0])
        began, before, rounds = time.monotonic(), time.process_time(), 0
        while time.monotonic() - began < seconds:
            due = began + rounds + 1
            await asyncio.gather(*(look(each) for each in ids))
            rounds += 1
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        taken = time.monotonic() - began
        return (time.process_time() - before) / taken, rounds / taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=15.0, help="how long each is measured")
    arguments = parser.parse_args()
    idle, polling, per_second = asyncio.run(measured(arguments.instances, arguments.seconds))
    print(
        f"CPU of an idle controller of {arguments.instances} machines: {idle:.2%} of one; of asking for each "
        f"at {per_second:.2f} Hz: {polling:.2%}; ratio {idle / polling:.3f}"
    )


if __name__ == "__main__":
    main()
