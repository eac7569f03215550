"""Time what the controller adds to launch, stop and start: through it against the same calls to its runner.

The runner is the fake one of tests/chaos, which takes no time of its own: what is left on the one side is
asking it, on the other that and all that the controller promises besides (operation, steps, fence, events,
each written to the disk before it counts).
"""

import argparse
import asyncio
import statistics
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/chaos"))

import grpc
from killmatrix.world import World
from qcontroller.runner.v1 import runner_pb2 as pb
from qcontroller.runner.v1.runner_pb2_grpc import MachineServiceStub
from scale import all_seen, until

VERBS = ("launch", "force-stop", "start")
Times = dict[str, list[float]]


async def measured(rounds: int) -> tuple[Times, Times]:
    through: Times = {verb: [] for verb in VERBS}
    straight: Times = {verb: [] for verb in VERBS}
    async with World(slots=8) as world, grpc.aio.insecure_channel(world.to_runner.target) as channel:
        await until(world, lambda: all_seen(world))
        await asked(world, "warm", {verb: [] for verb in VERBS})
        stub = MachineServiceStub(channel)
        spec = next(iter(world.host.machines.values())).spec
        await called(stub, spec, {verb: [] for verb in VERBS})
        for number in range(rounds):
            await asked(world, f"vm-{number}", through)
            await called(stub, spec, straight)
    return through, straight


async def asked(world: World, name: str, times: Times) -> None:
    """Have an instance launched, stopped and started, and wait for the end of each."""
    for verb in VERBS:

        async def work(verb: str = verb) -> None:
            mutation = await world.client.ask(verb, name, f"{verb} {name}")
            ended = await world.client.ended(mutation.operation.id)
            assert not ended.error.reason, ended.error

        times[verb].append(await timed(work))


async def called(stub: MachineServiceStub, spec: pb.MachineSpec, times: Times) -> None:
    """Make the calls that the controller makes for it, on a machine of its own."""
    machine_id = str(uuid.uuid4())

    def fencing(step: str) -> pb.Fencing:
        return pb.Fencing(machine_id=machine_id, fence=1, request_id=step)

    async def look() -> None:
        await stub.GetMachine(pb.GetMachineRequest(machine_id=machine_id, fence=1))

    async def launch() -> None:
        await stub.PlanMachine(pb.PlanMachineRequest(machine_id=machine_id, spec=spec))
        await look()
        await drained(stub.PrepareMachine(pb.PrepareMachineRequest(fencing=fencing("prepare"), spec=spec)))
        await look()
        await stub.StartMachine(pb.StartMachineRequest(fencing=fencing("start")))

    async def stop() -> None:
        await look()
        await drained(stub.StopMachine(pb.StopMachineRequest(fencing=fencing("stop"), force=True)))

    async def start() -> None:
        await look()
        await drained(stub.PrepareMachine(pb.PrepareMachineRequest(fencing=fencing("again"), spec=spec)))
        await stub.StartMachine(pb.StartMachineRequest(fencing=fencing("start again")))

    for verb, work in zip(VERBS, (launch, stop, start), strict=True):
        times[verb].append(await timed(work))


async def drained(call: AsyncIterator[object]) -> None:
    async for _ in call:
        continue


async def timed(work: Callable[[], Awaitable[None]]) -> float:
    began = time.monotonic()
    await work()
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    through, straight = asyncio.run(measured(arguments.rounds))
    for verb in VERBS:
        ours, theirs = through[verb], straight[verb]
        median, least = statistics.median(ours) * 1000, statistics.median(theirs) * 1000
        p99 = statistics.quantiles(ours, n=100, method="inclusive")[98] * 1000
        print(
            f"{verb} through the controller: median {median:.1f} ms, p99 {p99:.1f} ms (of {len(ours)}); "
            f"the runner's calls alone: {least:.1f} ms; added {median - least:.1f} ms; "
            f"ratio {median / least:.1f}"
        )


if __name__ == "__main__":
    main()
