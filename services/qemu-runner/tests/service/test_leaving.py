"""What becomes of the guard when the service is told to end."""

import asyncio

from qemu_runner.service.leaving import Leaving


class Machine:
    def __init__(self, *, runs: bool) -> None:
        self.run = object() if runs else None
        self.ended = asyncio.Event()

    def end(self) -> None:
        self.run = None
        self.ended.set()


class Fleet(list[Machine]):
    may_run_unrecorded = False

    def foreign(self) -> list[Machine]:
        return []


class Link:
    def __init__(self) -> None:
        self.stopping = asyncio.Event()


class VmHosts(list[Link]):
    """The first of two has machines; one is all there is."""

    def with_machines(self) -> list[Link]:
        return self[:1]


class Network:
    def __init__(self) -> None:
        self.removed = False

    async def leave(self) -> None:
        self.removed = True


def leaving(machines: Fleet, link: Link, network: Network) -> Leaving:
    return Leaving(machines, VmHosts([link]), network, word_within_s=0.05)  # type: ignore[arg-type]


async def test_without_machines_the_guard_goes_at_once() -> None:
    network = Network()
    await leaving(Fleet(), Link(), network).leave()
    assert network.removed


async def test_machines_that_run_on_keep_their_guard() -> None:
    network = Network()
    await leaving(Fleet([Machine(runs=True)]), Link(), network).leave()
    assert not network.removed


async def test_a_machine_of_which_nothing_is_known_keeps_the_guard() -> None:
    network, machines = Network(), Fleet()
    machines.may_run_unrecorded = True
    await leaving(machines, Link(), network).leave()
    assert not network.removed


async def test_when_vm_host_stops_the_guard_goes_behind_the_last_machine() -> None:
    network, link, machine = Network(), Link(), Machine(runs=True)
    work = asyncio.create_task(leaving(Fleet([machine]), link, network).leave())
    link.stopping.set()
    await asyncio.sleep(0)
    assert not network.removed
    machine.end()
    await work
    assert network.removed


async def test_an_older_vm_host_that_ended_empty_takes_nothing_down() -> None:
    network, newer, older = Network(), Link(), Link()
    older.stopping.set()
    vm_hosts, machines = VmHosts([newer, older]), Fleet([Machine(runs=True)])
    await Leaving(machines, vm_hosts, network, word_within_s=0.05).leave()  # type: ignore[arg-type]
    assert not network.removed
