"""Frozen guests are thawed in time, whatever becomes of those who froze them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from qemu_runner.domain.machine import MachineId
from qemu_runner.errors import GuestAgentRefusedError, SpecInvalidError
from qemu_runner.service import freezing as module
from qemu_runner.service.agent_watch import AgentWatch
from qemu_runner.service.freezing import Freezing
from qemu_runner.service.guest import Guests
from qemu_runner.service.live import Frozen, Live
from qemu_runner.service.tasks import Tasks
from scripted_agent import agent, client, reply

ID = MachineId("00000000-0000-4000-8000-000000000001")


@dataclass
class Disk:
    """A guest's filesystems, as the agent's commands see them. `refusals`: thaws that fail first."""

    frozen: bool = False
    refusals: int = 0
    freezes: int = 0
    broken: bool = False
    freezable: int = 2
    thawed: asyncio.Event = field(default_factory=asyncio.Event)
    looked_at: asyncio.Event = field(default_factory=asyncio.Event)
    clock_set: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, command: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        match command["execute"]:
            case "guest-fsfreeze-freeze" if self.broken:
                reply(writer, {"error": {"desc": "not here"}})
            case "guest-fsfreeze-freeze":
                self.frozen, self.freezes = self.freezable > 0, self.freezes + 1
                reply(writer, {"return": self.freezable})
            case "guest-fsfreeze-status":
                self.looked_at.set()
                reply(writer, {"return": "frozen" if self.frozen else "thawed"})
            case "guest-fsfreeze-thaw" if self.refusals:
                self.refusals -= 1
                reply(writer, {"error": {"desc": "busy"}})
            case "guest-fsfreeze-thaw":
                count = self.freezable if self.frozen else 0
                self.frozen = False
                self.thawed.set()
                reply(writer, {"return": count})
            case "guest-set-time":
                self.clock_set.set()
                reply(writer, {"return": {}})
            case _:
                reply(writer, {"return": {}})


@dataclass
class Bench:
    disk: Disk
    live: Live
    freezing: Freezing
    tasks: Tasks
    path: Path


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(module, "_AGAIN_S", 0.01)
    disk = Disk()
    async with agent(tmp_path, disk) as path, client(path) as guest, Tasks() as tasks:
        live = Live(cast("Any", None), 1, "running")
        live.guest = guest
        machine = SimpleNamespace(live=live)
        guests = cast("Guests", SimpleNamespace(reach=lambda _id: (machine, guest)))
        yield Bench(disk, live, Freezing(guests, tasks), tasks, path)


async def test_a_freeze_nobody_ends_is_ended_in_time(bench: Bench) -> None:
    frozen = await bench.freezing.freeze(ID, 0.05)
    assert frozen.filesystems == 2
    await asyncio.wait_for(bench.disk.thawed.wait(), 10)


async def test_a_thaw_that_fails_is_tried_again(bench: Bench) -> None:
    bench.disk.refusals = 3
    await bench.freezing.freeze(ID, 0.05)
    await asyncio.wait_for(bench.disk.thawed.wait(), 10)
    assert not bench.disk.frozen


async def test_an_agent_that_is_away_is_asked_when_it_is_back(bench: Bench) -> None:
    await bench.freezing.freeze(ID, 60)
    guest, bench.live.guest = bench.live.guest, None
    bench.live.frozen = Frozen(datetime.now(UTC), 2)
    task = asyncio.create_task(bench.freezing._thaw_in_time(bench.live, 0))
    for _ in range(10):
        await asyncio.sleep(0)
    assert (bench.disk.frozen, task.done()) == (True, False)
    bench.live.guest = guest
    await asyncio.wait_for(task, 10)
    assert not bench.disk.frozen


async def test_a_repeated_freeze_lasts_from_then_on(bench: Bench) -> None:
    first = await bench.freezing.freeze(ID, 0.1)
    (first_timer,) = bench.tasks._tasks
    second = await bench.freezing.freeze(ID, 60)
    assert (second.filesystems, bench.disk.freezes) == (2, 1)
    assert second.until > first.until
    await asyncio.wait_for(asyncio.shield(first_timer), 10)
    assert bench.disk.frozen


async def test_a_guest_that_is_found_frozen_is_thawed(bench: Bench) -> None:
    bench.disk.frozen = True
    async with watching(bench):
        await asyncio.wait_for(bench.disk.thawed.wait(), 10)


async def test_a_guest_that_goes_on_gets_the_time(bench: Bench) -> None:
    async with watching(bench) as watch:
        watch.resumed()
        await asyncio.wait_for(bench.disk.clock_set.wait(), 10)


async def test_a_guest_that_went_on_while_it_was_frozen_gets_the_time_when_it_is_thawed(bench: Bench) -> None:
    await bench.freezing.freeze(ID, 60)
    async with watching(bench) as watch:
        watch.resumed()
        await asyncio.wait_for(bench.disk.looked_at.wait(), 10)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not bench.disk.clock_set.is_set()
        await bench.freezing.thaw(ID)
        await asyncio.wait_for(bench.disk.clock_set.wait(), 10)


async def test_a_guest_none_of_whose_filesystems_can_stand_still_is_not_frozen(bench: Bench) -> None:
    bench.disk.freezable = 0
    assert (await bench.freezing.freeze(ID, 60)).filesystems == 0
    assert bench.live.frozen is None


@asynccontextmanager
async def watching(bench: Bench) -> AsyncIterator[AgentWatch]:
    """Watch the guest's agent as the runner does."""

    async def answered() -> None:
        return

    watch = AgentWatch(bench.path, bench.path.with_name("in-guest"), bench.live, (), lambda: None, answered)
    watch.port_changed(is_open=True)
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_a_thaw_ends_it(bench: Bench) -> None:
    await bench.freezing.freeze(ID, 60)
    assert await bench.freezing.thaw(ID) == 2
    assert bench.live.frozen is None
    assert await bench.freezing.thaw(ID) == 0


async def test_a_freeze_that_is_refused_is_none(bench: Bench) -> None:
    bench.disk.broken = True
    with pytest.raises(GuestAgentRefusedError):
        await bench.freezing.freeze(ID, 60)
    assert bench.live.frozen is None


@pytest.mark.parametrize("timeout_s", [0, -1, 301])
async def test_a_freeze_without_end_is_refused(bench: Bench, timeout_s: float) -> None:
    with pytest.raises(SpecInvalidError):
        await bench.freezing.freeze(ID, timeout_s)
    assert not bench.disk.frozen
