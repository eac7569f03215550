"""Crashes, cancels and successors at every named moment of every plan: what is answered is what is there."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import controller.app
import grpc
import pytest
from controller.domain.machine import MachinePhase
from controller_fakes import SUCCEEDED, Cloud, FakeRunner, FakeStore, ended, reason_of, running_cloud
from qcontroller.controller.v1 import instance_pb2 as pb
from qcontroller.controller.v1 import operation_pb2

CANCELLED = operation_pb2.OPERATION_STATE_CANCELLED
STEPS = {
    "launch": ("image", "machine", "power", "running"),
    "start": ("power", "running"),
    "stop": ("power-off",),
    "restart": ("power-off", "power", "running"),
    "delete": ("begin", "machine", "image"),
}


class Crash(BaseException):
    """Ends the engine as SIGKILL would: nothing is released."""


class Moments:
    """The service's fail points: `act` is called once, when `wanted` is reached."""

    def __init__(self) -> None:
        self.wanted = ""
        self.reached = asyncio.Event()
        self.act: Callable[[], None] = lambda: None

    def __call__(self, name: str) -> None:
        if name == self.wanted:
            self.wanted = ""
            self.reached.set()
            self.act()

    def await_(self, moment: str, act: Callable[[], None]) -> None:
        self.wanted, self.act = moment, act
        self.reached.clear()

    def crash_at(self, moment: str) -> None:
        def crash() -> None:
            raise Crash(moment)

        self.await_(moment, crash)


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> Moments:
    found = Moments()
    monkeypatch.setattr(controller.app, "_fail_points", lambda: found)
    return found


@pytest.fixture
async def cloud(tmp_path: Path, moments: Moments) -> AsyncIterator[Cloud]:
    del moments
    async with running_cloud(tmp_path) as running:
        yield running


async def begin(cloud: Cloud, kind: str, name: str = "web-1") -> pb.Mutation:
    """Ask for it."""
    if kind == "launch":
        request = pb.LaunchInstanceRequest(name=name, image="tiny", start=True)
        mutation: pb.Mutation = (await cloud.instances.LaunchInstance(request, timeout=10)).mutation
        return mutation
    fields = {"force": True} if kind == "delete" else {}
    return await cloud.ask(kind.capitalize(), name, **fields)


async def at_rest(cloud: Cloud) -> pb.Instance:
    """Return the instance that no operation holds: a view from before the crash is looked at once more."""
    async with asyncio.timeout(10):
        instance = await cloud.get()
        while instance.status.operation:
            await cloud.ended(instance.status.operation)
            instance = await cloud.get()
    return instance


async def before(cloud: Cloud, kind: str, name: str = "web-1") -> None:
    """Have the instance as `kind` needs it."""
    if kind != "launch":
        await cloud.launch(name, start=kind != "start")


def moments_of(kind: str) -> list[str]:
    steps = [f"step.{step}.{when}" for step in STEPS[kind] for when in ("before_do", "after_do")]
    return ["claim.after_commit", *steps, "settle.before_commit"]


def crashes() -> list[tuple[str, str]]:
    """Return every moment of what makes and removes; of the others those after which a repeat could show."""
    return [
        (kind, at)
        for kind in STEPS
        for at in moments_of(kind)
        if kind in {"launch", "delete"} or at.endswith(".after_do")
    ]


@pytest.mark.parametrize(("kind", "moment"), crashes())
async def test_what_was_begun_before_a_crash_ends_as_if_there_had_been_none(
    tmp_path: Path, moments: Moments, kind: str, moment: str
) -> None:
    runner, store = FakeRunner(), FakeStore()
    async with running_cloud(tmp_path, runner, store) as cloud:
        await before(cloud, kind)
        moments.crash_at(moment)
        operation = (await begin(cloud, kind)).operation.id
        await asyncio.wait_for(moments.reached.wait(), 10)
    runner.watchers.clear()
    async with running_cloud(tmp_path, runner, store) as cloud:
        assert (await cloud.ended(operation)).state == SUCCEEDED
        if kind == "delete":
            assert left_of(runner, store) == []
            with pytest.raises(grpc.aio.AioRpcError) as gone:
                await cloud.get()
            assert reason_of(gone.value)[0] == "INSTANCE_NOT_FOUND"
            return
        instance = await at_rest(cloud)
        machine = runner.machines[instance.id]
        assert store.pins.keys() == {instance.id}
        if kind == "stop":
            assert instance.status.state == pb.INSTANCE_STATE_STOPPED
            assert machine.phase is MachinePhase.EXITED
        else:
            assert instance.status.state == pb.INSTANCE_STATE_RUNNING
            assert machine.running
            assert machine.incarnation == (2 if kind == "restart" else 1), "started once"


@pytest.mark.parametrize(
    ("end", "outcome", "state", "starts"),
    [
        ("GUEST_SHUTDOWN", SUCCEEDED, pb.INSTANCE_STATE_STOPPED, 1),
        ("QEMU_EXITED", operation_pb2.OPERATION_STATE_FAILED, pb.INSTANCE_STATE_FAILED, 1),
        ("VM_HOST_EXITED", SUCCEEDED, pb.INSTANCE_STATE_RUNNING, 2),
    ],
)
async def test_a_guest_that_ended_while_nobody_looked_is_not_started_a_second_time(
    tmp_path: Path, moments: Moments, end: str, outcome: int, state: int, starts: int
) -> None:
    """Unless its process was taken away: then the launch has yet to bring it about."""
    runner, store = FakeRunner(), FakeStore()
    async with running_cloud(tmp_path, runner, store) as cloud:
        moments.crash_at("step.power.after_do")
        operation = (await begin(cloud, "launch")).operation.id
        await asyncio.wait_for(moments.reached.wait(), 10)
        (machine_id,) = runner.machines
    runner.report(machine_id, **ended(end))
    runner.watchers.clear()
    async with running_cloud(tmp_path, runner, store) as cloud:
        done = await cloud.ended(operation)
        assert done.state == outcome
        instance = await cloud.until(lambda found: found.status.state == state)
        assert runner.machines[machine_id].incarnation == starts
        if end == "GUEST_SHUTDOWN":
            assert instance.desired_power == pb.DESIRED_POWER_STOPPED
        if end == "QEMU_EXITED":
            assert (done.error.reason, instance.status.reason) == (end, end)
            assert instance.status.stderr_tail == "qemu: stderr"


async def interrupted(
    cloud: Cloud, moments: Moments, kind: str, moment: str, by: Callable[[str], Awaitable[object]]
) -> tuple[str, operation_pb2.Operation, object]:
    """Carry `kind` out on an instance of its own; at `moment`, `by` is called with the operation's id."""
    name = f"{kind}-{moment.replace('.', '-').replace('_', '-')}"
    await before(cloud, kind, name)
    known: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    calls: list[asyncio.Task[object]] = []

    async def call() -> object:
        return await by(await known)

    moments.await_(moment, lambda: calls.append(asyncio.create_task(call())))
    known.set_result((await begin(cloud, kind, name)).operation.id)
    await asyncio.wait_for(moments.reached.wait(), 10)
    answer = await calls[0]
    return name, await cloud.ended(await known), answer


@pytest.mark.parametrize("kind", STEPS)
async def test_a_cancel_at_any_moment_leaves_what_the_operation_says(
    cloud: Cloud, moments: Moments, kind: str
) -> None:
    async def cancel(operation: str) -> object:
        try:
            return await cloud.operations.CancelOperation(
                operation_pb2.CancelOperationRequest(id=operation), timeout=10
            )
        except grpc.aio.AioRpcError as exc:
            return reason_of(exc)[0]

    for moment in moments_of(kind):
        name, final, answer = await interrupted(cloud, moments, kind, moment, cancel)
        if answer == "OPERATION_NOT_CANCELLABLE":
            assert final.state == SUCCEEDED, moment
        else:
            assert final.state in {CANCELLED, SUCCEEDED}, moment
        gone = (kind == "launch" and final.state == CANCELLED) or (
            kind == "delete" and final.state == SUCCEEDED
        )
        listed = await cloud.instances.ListInstances(pb.ListInstancesRequest(), timeout=10)
        assert (name in {instance.name for instance in listed.instances}) is not gone, moment
        if not gone:
            await in_agreement(cloud, name)
            await cloud.done(await cloud.ask("Delete", name, force=True))
        assert left_of(cloud.runner, cloud.store) == [], moment


@pytest.mark.parametrize("kind", ["launch", "start", "stop", "restart"])
@pytest.mark.parametrize("successor", ["Stop", "Delete"])
async def test_a_forced_successor_at_any_moment_has_its_way(
    cloud: Cloud, moments: Moments, kind: str, successor: str
) -> None:
    for moment in moments_of(kind):

        async def supersede(operation: str, moment: str = moment) -> object:
            del operation
            name = f"{kind}-{moment.replace('.', '-').replace('_', '-')}"
            return await cloud.ask(successor, name, force=True)

        name, final, answer = await interrupted(cloud, moments, kind, moment, supersede)
        assert isinstance(answer, pb.Mutation)
        if answer.HasField("operation"):
            await cloud.done(answer)
        if final.state == CANCELLED:
            assert final.error.reason == "SUPERSEDED", moment
            assert final.error.metadata["operation"].endswith(answer.operation.id), moment
        else:
            assert final.state == SUCCEEDED, moment
        if successor == "Stop":
            assert (await cloud.get(name)).status.state == pb.INSTANCE_STATE_STOPPED, moment
            await in_agreement(cloud, name)
            await cloud.done(await cloud.ask("Delete", name))
        assert left_of(cloud.runner, cloud.store) == [], moment


def left_of(runner: FakeRunner, store: FakeStore) -> list[str]:
    """Return the ids of machines, directories and pins that there are."""
    return [*runner.machines, *runner.directories, *store.pins]


async def in_agreement(cloud: Cloud, name: str) -> None:
    """Wait until the instance is at rest and its state is what its machine is like."""

    def agrees(instance: pb.Instance) -> bool:
        machine = cloud.runner.machines.get(instance.id)
        active = machine is not None and machine.phase is MachinePhase.ACTIVE
        running = instance.status.state == pb.INSTANCE_STATE_RUNNING
        stopped = instance.status.state == pb.INSTANCE_STATE_STOPPED
        return not instance.status.operation and (running if active else stopped)

    await cloud.until(agrees, name)
