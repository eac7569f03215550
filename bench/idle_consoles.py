"""What 100 viewers of consoles cost while nobody types and no guest prints, against none.

Memory (PSS) and CPU of gateway, controller and runner, with the same guests running: first without a viewer,
then with all of them attached by WebSocket, then without again.
"""

import argparse
import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

from idle import cpu_seconds
from qcstack import lifecycle
from qcstack.demo.rest import RestClient
from qcstack.layout import StackLayout
from run import pss_mib, small_guest, stack
from websockets.asyncio.client import ClientConnection, connect

SERVICES = ("gateway", "controller", "qemu-runner")
# A runner lets so many watch one console.
MOST_A_GUEST = 32
WITHIN_S = 300


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one service: its memory, and the part of a CPU that it takes."""

    memory_mib: float
    cpus: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--viewers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each is measured")
    arguments = parser.parse_args()
    with stack() as layout:
        rest = RestClient(layout.gateway_port, lambda _curl: None)
        rest.upload("/v1/images/tiny", small_guest(), lambda _done, _total: None)
        guests = [launched(rest, number) for number in range(-(-arguments.viewers // MOST_A_GUEST))]
        pids = pids_of(layout)
        before = measured(pids, arguments.seconds)
        watched = asyncio.run(watching(layout, guests, arguments.viewers, pids, arguments.seconds))
        after = measured(pids, arguments.seconds)
    for name in SERVICES:
        tell(name, before[name], watched[name], after[name], arguments.viewers)


def launched(rest: RestClient, number: int) -> str:
    """Return the name of a guest whose boot is over."""
    name = f"console-{number}"
    spec = {"name": name, "image": "tiny", "vm": {"cpus": 1, "memory": "128M"}, "start": True}
    rest.call("POST", "/v1/instances", spec, wait_s=60)
    rest.call("GET", f"/v1/instances/{name}/wait?condition=Ready&timeout={WITHIN_S}")
    rest.call("GET", f"/v1/instances/{name}/wait?condition=CloudInitDone&timeout={WITHIN_S}")
    return name


def pids_of(layout: StackLayout) -> dict[str, int]:
    services = lifecycle.status(layout).services
    found = {name: services[name].process for name in SERVICES}
    return {name: process.pid for name, process in found.items() if process is not None}


async def watching(
    layout: StackLayout, guests: list[str], viewers: int, pids: dict[str, int], seconds: float
) -> dict[str, Cost]:
    """Return what the services cost while so many watch."""
    base = f"ws://127.0.0.1:{layout.gateway_port}/v1/instances"
    async with AsyncExitStack() as stack_:
        for number in range(viewers):
            url = f"{base}/{guests[number % len(guests)]}/console/attach"
            socket = await stack_.enter_async_context(connect(url))
            await opened(socket)
        return await asyncio.to_thread(measured, pids, seconds)


async def opened(socket: ClientConnection) -> None:
    """Wait until the viewer has been told who writes; what follows is what the guest had said."""
    while True:
        message = await socket.recv()
        if isinstance(message, str) and "role" in message:
            return


def measured(pids: dict[str, int], seconds: float) -> dict[str, Cost]:
    """Return what each service costs in the next seconds."""
    began, before = time.monotonic(), {name: cpu_seconds(pid) for name, pid in pids.items()}
    time.sleep(seconds)
    taken = time.monotonic() - began
    return {name: Cost(pss_mib(pid), (cpu_seconds(pid) - before[name]) / taken) for name, pid in pids.items()}


def tell(name: str, before: Cost, watched: Cost, after: Cost, viewers: int) -> None:
    a_viewer = (watched.memory_mib - before.memory_mib) * 1024 / viewers
    print(
        f"{viewers} idle consoles at the {name}: memory {watched.memory_mib:.1f} MiB against "
        f"{before.memory_mib:.1f} without ({a_viewer:.0f} KiB a viewer, {after.memory_mib:.1f} MiB when they "
        f"are gone), ratio {watched.memory_mib / before.memory_mib:.2f}; CPU {watched.cpus:.2%} against "
        f"{before.cpus:.2%}, difference {watched.cpus - before.cpus:+.2%} of one"
    )


if __name__ == "__main__":
    main()
