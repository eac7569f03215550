"""The contract of every runner: the real one with QEMU, the fake one over gRPC, the one of the unit tests.

The claims are made at the controller's port `Runner`, so that they hold for what the controller is told; its
client is tested with the first two.
"""

import asyncio
import json
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import controller_fakes
import pytest
import pytest_asyncio
from controller.adapters.runner_client import RunnerClient
from controller.domain.console import ConsoleWish
from controller.domain.machine import (
    ExecRequest,
    Machine,
    MachineImage,
    MachinePhase,
    MachineSpec,
)
from controller.errors import PeerAway, PeerRefused, StaleFence
from controller.ports import Fencing, Runner, SnapshotComplete
from fakerunner import FakeRunner
from runner_stack import VIRTUAL_SIZE, running_stack
from servicekit.channel import grpc_channel

pytestmark = pytest.mark.asyncio(loop_scope="module")

_WITHIN_S = 90.0
_DIGEST = "sha256:" + "cd" * 32


@dataclass
class Bench:
    """A runner and what a test needs to talk to it."""

    runner: Runner
    digest: str
    die: Callable[[], Awaitable[None]]
    fence: int = 1

    def spec(self, **changes: Any) -> MachineSpec:
        spec = MachineSpec(
            name="contract-1",
            arch="x86_64",
            cpus=1,
            memory_mib=256,
            disk_bytes=VIRTUAL_SIZE,
            image=MachineImage(self.digest, "qcow2", VIRTUAL_SIZE),
            nics=(),
            cluster_id="tests",
            record='{"name":"contract-1"}',
        )
        return replace(spec, **changes)

    def ask(self, machine_id: str, *, fence: int = 1, request: str = "") -> Fencing:
        return Fencing(machine_id, fence, request or f"op-{uuid.uuid4().hex}/step", _WITHIN_S)

    async def prepared(self, machine_id: str = "", **changes: Any) -> str:
        machine_id = machine_id or str(uuid.uuid4())
        await self.runner.prepare(self.ask(machine_id), self.spec(**changes), _no_progress)
        return machine_id

    async def started(self) -> str:
        machine_id = await self.prepared()
        await self.runner.start(self.ask(machine_id))
        return machine_id

    async def stop(self, machine_id: str, *, force: bool = True, fence: int = 1) -> tuple[list[str], Machine]:
        stages: list[str] = []

        async def stage(name: str) -> None:
            stages.append(name)

        machine = await self.runner.stop(
            self.ask(machine_id, fence=fence), force=force, grace_s=0 if force else 60, stage=stage
        )
        return stages, machine

    async def until(self, machine_id: str, holds: Callable[[Machine], bool]) -> Machine:
        """Follow the watch until the machine is as wanted."""
        async with asyncio.timeout(_WITHIN_S):
            async for report in self.runner.watch():
                if isinstance(report, Machine) and report.id == machine_id and holds(report):
                    return report
        raise AssertionError("the watch ended")

    async def boot_id(self, machine_id: str) -> bytes:
        request = ExecRequest(("/bin/cat", "/proc/sys/kernel/random/boot_id"), {}, b"", 10)
        return (await self.runner.execute(machine_id, request)).stdout


def _no_progress(done: int, total: int, unit: str) -> None:
    del done, total, unit


@asynccontextmanager
async def _real(directory: Path) -> AsyncIterator[Bench]:
    async with running_stack(directory) as stack, grpc_channel(stack.target) as channel:
        # Ready when it answers.
        await stack.get(str(uuid.uuid4()))

        async def die() -> None:
            await stack.kill(stack.runner)
            await stack.start_runner()
            await stack.get(str(uuid.uuid4()))

        yield Bench(RunnerClient("node-1", channel), stack.blobs.digest, die)


@asynccontextmanager
async def _fake(directory: Path) -> AsyncIterator[Bench]:
    async with (
        FakeRunner(f"unix:{directory}/fake.sock") as fake,
        grpc_channel(fake.target) as channel,
    ):
        fake.host.memory_mib = 4096

        async def die() -> None:
            fake.crash()

        yield Bench(RunnerClient("node-1", channel), _DIGEST, die)


@asynccontextmanager
async def _in_memory(directory: Path) -> AsyncIterator[Bench]:
    del directory
    fake = controller_fakes.FakeRunner(agents=True, left=(), console=b"Linux version fake\nlogin: ")

    async def die() -> None:
        fake.break_off()
        fake.away = False

    yield Bench(fake, _DIGEST, die)


_RUNNERS = {"real": _real, "fake": _fake, "in-memory": _in_memory}


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=[pytest.param("real", marks=pytest.mark.real), "fake", "in-memory"],
)
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    # pytest's own directories are closed to the uids that machines get, and too long for sockets.
    with tempfile.TemporaryDirectory(prefix="qc-contract-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        async with AsyncExitStack() as stack:
            made = await stack.enter_async_context(_RUNNERS[request.param](directory))
            yield made
            assert await made.runner.leaks() == [], "nothing is left that no machine claims"


async def refused(call: Awaitable[Any]) -> str:
    """Return the reason that a call is refused with."""
    with pytest.raises(PeerRefused) as caught:
        await call
    return caught.value.reason


async def test_what_is_not_there_is_absent_and_gone_already(bench: Bench) -> None:
    machine_id = str(uuid.uuid4())
    assert (await bench.runner.get(machine_id)).phase is MachinePhase.ABSENT
    assert (await bench.runner.quiesce(bench.ask(machine_id))).phase is MachinePhase.ABSENT
    await bench.runner.delete(bench.ask(machine_id))
    await bench.runner.delete(bench.ask(machine_id))


@pytest.mark.parametrize("call", ["start", "pause", "resume", "reset"])
async def test_nothing_is_done_to_what_is_not_there(bench: Bench, call: str) -> None:
    asked = getattr(bench.runner, call)(bench.ask(str(uuid.uuid4())))
    assert await refused(asked) == "MACHINE_NOT_FOUND"


async def test_what_is_not_there_is_not_stopped(bench: Bench) -> None:
    assert await refused(bench.stop(str(uuid.uuid4()))) == "MACHINE_NOT_FOUND"


async def test_preparing_again_changes_nothing(bench: Bench) -> None:
    machine_id = str(uuid.uuid4())
    for _ in range(2):
        machine = await bench.runner.prepare(bench.ask(machine_id), bench.spec(), _no_progress)
        assert machine.phase is MachinePhase.PREPARED
        assert machine.record == bench.spec().record
    await bench.runner.delete(bench.ask(machine_id))


async def test_what_runs_is_not_started_again(bench: Bench) -> None:
    machine_id = await bench.prepared()
    for _ in range(2):
        machine = await bench.runner.start(bench.ask(machine_id))
        assert (machine.phase, machine.run_state) == (MachinePhase.ACTIVE, "running")
        assert machine.incarnation == 1
    await bench.runner.delete(bench.ask(machine_id))


async def test_starts_of_one_request_at_the_same_moment_are_one_start(bench: Bench) -> None:
    machine_id = await bench.prepared()
    fencing = bench.ask(machine_id)
    machines = await asyncio.gather(*(bench.runner.start(fencing) for _ in range(4)))
    assert {machine.incarnation for machine in machines} == {1}
    await bench.runner.delete(bench.ask(machine_id))


async def test_a_stop_ends_the_process_once_and_says_how(bench: Bench) -> None:
    machine_id = await bench.started()
    stages, machine = await bench.stop(machine_id)
    assert stages[0] == "quit"
    assert machine.phase is MachinePhase.EXITED
    assert machine.exit is not None
    assert machine.exit.reason == "STOPPED"
    stages, again = await bench.stop(machine_id)
    assert (stages, again.phase) == ([], MachinePhase.EXITED)
    assert (await bench.runner.start(bench.ask(machine_id))).incarnation == 2
    await bench.runner.delete(bench.ask(machine_id))


async def test_pause_and_resume_say_what_holds_afterwards(bench: Bench) -> None:
    machine_id = await bench.started()
    for _ in range(2):
        assert (await bench.runner.pause(bench.ask(machine_id))).run_state == "paused"
    for _ in range(2):
        assert (await bench.runner.resume(bench.ask(machine_id))).run_state == "running"
    await bench.runner.pause(bench.ask(machine_id))
    machine = await bench.runner.start(bench.ask(machine_id))
    assert (machine.run_state, machine.incarnation) == ("running", 1), "a start lets the paused go on"
    await bench.runner.delete(bench.ask(machine_id))


@pytest.mark.parametrize("call", ["pause", "resume", "reset"])
async def test_what_has_no_process_is_refused(bench: Bench, call: str) -> None:
    machine_id = await bench.prepared()
    assert await refused(getattr(bench.runner, call)(bench.ask(machine_id))) == "MACHINE_STATE_CONFLICT"
    await bench.runner.delete(bench.ask(machine_id))


async def test_one_request_resets_once(bench: Bench) -> None:
    machine_id = await bench.started()
    await bench.until(machine_id, lambda machine: machine.agent_connected)
    before = await bench.boot_id(machine_id)
    fencing = bench.ask(machine_id, request="op-1/reset")
    await bench.runner.reset(fencing)
    await bench.until(machine_id, lambda machine: machine.agent_connected)
    after = await bench.boot_id(machine_id)
    assert before != after
    machine = await bench.runner.reset(fencing)
    assert machine.agent_connected, "a repetition resets nothing"
    assert await bench.boot_id(machine_id) == after
    program = ExecRequest(("/no/such",), {}, b"", 10)
    assert await refused(bench.runner.execute(machine_id, program)) == "GUEST_PROGRAM_NOT_FOUND"
    await bench.stop(machine_id)
    assert await refused(bench.runner.execute(machine_id, program)) == "MACHINE_STATE_CONFLICT"
    await bench.runner.delete(bench.ask(machine_id))


async def test_a_lower_fence_is_refused_by_every_mutation_and_survives_a_delete(bench: Bench) -> None:
    machine_id = await bench.prepared()
    await bench.runner.get(machine_id, fence=7)
    runner, stale = bench.runner, bench.ask(machine_id, fence=6)
    for call in (runner.start, runner.pause, runner.resume, runner.reset, runner.delete, runner.quiesce):
        with pytest.raises(StaleFence):
            await call(stale)
    with pytest.raises(StaleFence):
        await bench.stop(machine_id, fence=6)
    with pytest.raises(StaleFence):
        await runner.prepare(stale, bench.spec(), _no_progress)
    with pytest.raises(StaleFence):
        await runner.get(machine_id, fence=6)
    assert (await runner.get(machine_id)).phase is MachinePhase.PREPARED
    await runner.delete(bench.ask(machine_id, fence=8))
    with pytest.raises(StaleFence):
        await runner.prepare(bench.ask(machine_id, fence=7), bench.spec(), _no_progress)
    assert (await runner.get(machine_id)).phase is MachinePhase.ABSENT


async def test_machines_and_fences_outlive_the_runner(bench: Bench) -> None:
    machine_id = await bench.started()
    await bench.runner.get(machine_id, fence=5)
    await bench.die()
    machine = await _answered(lambda: bench.runner.get(machine_id))
    assert (machine.phase, machine.incarnation) == (MachinePhase.ACTIVE, 1)
    with pytest.raises(StaleFence):
        await bench.runner.pause(bench.ask(machine_id, fence=4))
    await bench.runner.delete(bench.ask(machine_id, fence=5))


async def test_a_delete_ends_what_runs_and_leaves_nothing(bench: Bench) -> None:
    machine_id = await bench.started()
    await bench.runner.delete(bench.ask(machine_id))
    assert (await bench.runner.get(machine_id)).phase is MachinePhase.ABSENT
    assert await bench.runner.leaks() == []


async def test_the_watch_tells_all_there_is_and_then_every_change(bench: Bench) -> None:
    machine_id, other = await bench.prepared(), await bench.prepared()
    async with asyncio.timeout(_WITHIN_S):
        watch = bench.runner.watch()
        snapshot: dict[str, Machine] = {}
        async for report in watch:
            if isinstance(report, SnapshotComplete):
                break
            if isinstance(report, Machine):
                snapshot[report.id] = report
        assert {machine_id, other} <= snapshot.keys()
        await bench.runner.start(bench.ask(machine_id))
        await bench.runner.delete(bench.ask(machine_id))
        seen = [snapshot[machine_id]]
        while seen[-1].phase is not MachinePhase.ABSENT:
            report = await anext(watch)
            if isinstance(report, Machine) and report.id == machine_id:
                seen.append(report)
        revisions = [machine.revision for machine in seen]
        assert revisions == sorted(set(revisions)), "each change has a higher revision"
    await bench.runner.delete(bench.ask(other))


async def test_what_cannot_be_had_is_refused_by_the_plan_which_changes_nothing(bench: Bench) -> None:
    machine_id = str(uuid.uuid4())
    plan = await bench.runner.plan(machine_id, bench.spec())
    assert plan.accelerator == "tcg"
    assert machine_id in plan.qemu_argv
    too_much = bench.spec(memory_mib=1 << 20)
    assert await refused(bench.runner.plan(machine_id, too_much)) == "HOST_CAPACITY_EXHAUSTED"
    too_small = bench.spec(disk_bytes=1 << 20)
    assert await refused(bench.runner.plan(machine_id, too_small)) == "FIELD_INVALID"
    assert (await bench.runner.get(machine_id)).phase is MachinePhase.ABSENT


async def test_what_runs_keeps_its_hardware_and_what_exists_its_image(bench: Bench) -> None:
    machine_id = await bench.prepared()
    other = bench.spec(image=MachineImage("sha256:" + "ef" * 32, "qcow2", VIRTUAL_SIZE))
    asked = bench.runner.prepare(bench.ask(machine_id), other, _no_progress)
    assert await refused(asked) == "MACHINE_STATE_CONFLICT"
    await bench.runner.start(bench.ask(machine_id))
    bigger = bench.spec(memory_mib=300)
    asked = bench.runner.prepare(bench.ask(machine_id), bigger, _no_progress)
    assert await refused(asked) == "MACHINE_STATE_CONFLICT"
    await bench.runner.delete(bench.ask(machine_id))


async def test_a_stopped_machine_becomes_what_is_prepared(bench: Bench) -> None:
    machine_id = await bench.prepared()
    changed = bench.spec(memory_mib=300, disk_bytes=VIRTUAL_SIZE + (1 << 20), record='{"name":"other"}')
    machine = await bench.runner.prepare(bench.ask(machine_id), changed, _no_progress)
    assert (machine.phase, machine.record) == (MachinePhase.PREPARED, changed.record)
    await bench.runner.delete(bench.ask(machine_id))


async def test_after_a_quiesce_nothing_of_a_lower_fence_begins(bench: Bench) -> None:
    machine_id = await bench.started()
    stop = asyncio.ensure_future(bench.stop(machine_id, force=False))
    machine = await bench.runner.quiesce(bench.ask(machine_id, fence=2))
    settled = (machine.phase, machine.incarnation)
    await asyncio.gather(stop, return_exceptions=True)
    with pytest.raises(StaleFence):
        await bench.runner.start(bench.ask(machine_id, fence=1))
    machine = await bench.runner.get(machine_id)
    assert (machine.phase, machine.incarnation) == settled
    await bench.runner.delete(bench.ask(machine_id, fence=2))


async def test_the_console_is_read_from_the_end(bench: Bench) -> None:
    machine_id = await bench.started()
    await bench.until(machine_id, lambda machine: machine.agent_connected)
    whole = b"".join([chunk.chunk async for chunk in bench.runner.read_console(machine_id, ConsoleWish())])
    assert b"Linux version" in whole
    (tail,) = [chunk async for chunk in bench.runner.read_console(machine_id, ConsoleWish(-4, 4))]
    assert len(tail.chunk) == 4
    await bench.runner.delete(bench.ask(machine_id))


async def test_evidence_tells_what_a_machine_was_started_as_and_of_a_strange_one_nothing(
    bench: Bench,
) -> None:
    assert [part.name async for part in bench.runner.evidence(str(uuid.uuid4()), "")] == []
    machine_id = await bench.started()
    parts = {part.name: part.content async for part in bench.runner.evidence(machine_id, "")}
    assert machine_id in json.loads(parts["qemu-argv.json"])
    await bench.runner.delete(bench.ask(machine_id))
    assert [part.name async for part in bench.runner.evidence(machine_id, "")] == []


async def test_an_id_that_is_none_is_refused(bench: Bench) -> None:
    assert await refused(bench.runner.get("../etc")) == "FIELD_INVALID"
    assert await refused(bench.runner.delete(bench.ask("../etc"))) == "FIELD_INVALID"


async def test_the_host_tells_of_itself(bench: Bench) -> None:
    host = await bench.runner.host()
    assert host.node.accelerator == "tcg"
    assert host.node.memory_total_mib > 0
    assert all(dependency.up for dependency in host.dependencies)
    assert await bench.runner.doctor()


async def _answered(call: Callable[[], Awaitable[Machine]]) -> Machine:
    """Call until the runner that has just died answers again; the channel comes back by itself."""
    async with asyncio.timeout(_WITHIN_S):
        while True:
            try:
                return await call()
            except PeerAway:
                continue
