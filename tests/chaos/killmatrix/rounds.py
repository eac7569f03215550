"""Rounds of operations and strikes in one world, each judged when everything is at rest again."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from qcontroller.controller.v1 import host_pb2, operation_pb2
from qcontroller.controller.v1 import instance_pb2 as pb

from killmatrix import truth
from killmatrix.client import Refused
from killmatrix.plan import KINDS, VERBS, Fault, Strike, strikes
from killmatrix.report import Report
from killmatrix.world import World

_FEWEST, _MOST = 50, 130
_REST_S: Final = 120.0
_HOUR_S: Final = 3600.0
# A strike that waits for a certain call takes any after this many others.
_PATIENCE_CALLS: Final = 200
_TWINS: Final = 0.15


class NotTrueError(AssertionError):
    """What the matrix found."""


@dataclass(slots=True)
class Wish:
    """One thing asked for in a round, and what became of it."""

    verb: str
    name: str
    key: str
    memory: str
    twin: bool
    instance_id: str = ""
    operation: operation_pb2.Operation | None = None
    meddled: bool = False


def cut_short(wishes: list[Wish], instance_id: str) -> bool:
    """Tell whether an instance's launch was called off; if it is there, a forced stop came between."""
    return any(
        wish.verb.startswith("launch")
        and wish.instance_id == instance_id
        and wish.operation is not None
        and wish.operation.state == operation_pb2.OPERATION_STATE_CANCELLED
        for wish in wishes
    )


class Rounds:
    """Plays rounds; everything random comes out of `seed`."""

    def __init__(self, world: World, seed: str) -> None:
        self.report = Report()
        self._world = world
        self._seed = seed
        self._number = 0
        self._calls = 0
        self._strike: Strike | None = None
        self._waiting: list[Strike] = []
        self._moment: Strike | None = None
        self._wishes: dict[str, Wish] = {}
        self._lasting: set[asyncio.Task[None]] = set()
        self._deadlines_void = False
        self._unmade: set[str] = set()
        self._rng = random.Random(seed)
        world.runner.faults.observer = self._reached
        world.store.faults.observer = self._reached
        world.died = self._died

    async def play(self, operations: int) -> None:
        """Play one round of about that many operations.

        Raises:
            NotTrueError: Something that must hold does not.
        """
        began = time.monotonic()
        self._number += 1
        self._rng = random.Random(f"{self._seed}/{self._number}")
        world, position = self._world, len(self._world.host.journal)
        before = {instance.id: instance for instance in await world.client.list()}
        wishes = self._wish(list(before.values()), operations)
        self._wishes = {wish.name: wish for wish in wishes}
        kinds = {KINDS.get(wish.verb, wish.verb) for wish in wishes}
        self._waiting = strikes(self._rng, len(wishes), sorted(kinds))
        self._calls, self._strike, self._deadlines_void = 0, None, False
        self._arm_next()
        async with asyncio.TaskGroup() as group:
            for wish in wishes:
                group.create_task(self._carry(wish))
        self._strike, self._waiting = None, []
        world.controller.disarm()
        await asyncio.gather(*self._lasting)
        self._moment = None
        instances = await self._at_rest()
        self._unmade = {one.id for one in instances if one.id in self._unmade or cut_short(wishes, one.id)}
        self._unmade -= world.host.machines.keys() & world.store.pins
        entries = world.host.journal.since(position)
        harmed = truth.harmed(entries)
        problems = [
            *truth.double_actions(world.host.journal),
            *truth.left_over(instances, world.host, world.store.pins),
            *truth.missing(instances, world.host, world.store.pins, self._unmade),
            *self._unexplained(wishes, harmed),
            *(f"a controller ended by itself: {code}" for code in world.faulty_ends),
        ]
        asked = {wish.name for wish in wishes}
        touched = {entry.machine_id for entry in entries}
        problems += [
            f"{name} was touched though nobody asked"
            for name, instance_id in ((one.name, one.id) for one in before.values())
            if name not in asked and instance_id in touched - harmed
        ]
        if problems:
            raise NotTrueError("\n".join([f"round {self._number} of seed {self._seed}:", *problems]))
        self.report.rounds += 1
        self.report.seconds += time.monotonic() - began

    def _wish(self, instances: list[pb.Instance], operations: int) -> list[Wish]:
        rng = self._rng
        wishes: list[Wish] = []
        rng.shuffle(instances)
        free = list(instances)
        for number in range(operations):
            key = f"{self._number}-{number}-{rng.getrandbits(40):x}"
            memory = f"{rng.choice((128, 192, 256, 320))}M"
            twin = rng.random() < _TWINS
            few = len(instances) + sum(wish.verb.startswith("launch") for wish in wishes) < _FEWEST
            if not free or few or (len(instances) < _MOST and rng.random() < 0.25):
                verb = rng.choice(("launch", "launch", "launch", "launch-off"))
                name = f"vm-{self._number}-{number}"
                wishes.append(Wish(verb, name, key, memory, twin))
                continue
            instance = free.pop()
            state = pb.InstanceState.Name(instance.status.state).removeprefix("INSTANCE_STATE_")
            verb = rng.choice(VERBS[state])
            wishes.append(Wish(verb, instance.name, key, memory, twin, instance.id))
        return wishes

    async def _carry(self, wish: Wish) -> None:
        """Ask and wait for the end; a twin asks the same at the same moment."""
        client = self._world.client
        asked: list[Awaitable[pb.Mutation]] = [
            client.ask(wish.verb, wish.name, wish.key, memory=wish.memory) for _ in range(1 + wish.twin)
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, Refused):
                raise answer
        accepted = [answer for answer in answers if isinstance(answer, pb.Mutation)]
        if not accepted:
            self.report.refusals.update(
                answer.reason for answer in answers[:1] if isinstance(answer, Refused)
            )
            return
        if len(accepted) != len(answers) or len({answer.operation.id for answer in accepted}) != 1:
            raise NotTrueError(f"two requests with the key {wish.key} were answered apart: {answers}")
        mutation = accepted[0]
        if not mutation.HasField("operation"):
            self.report.outcomes["no-op"] += 1
            return
        wish.operation = mutation.operation
        wish.instance_id = wish.instance_id or mutation.instance.id
        final = await client.ended(mutation.operation.id)
        wish.operation = final
        state = operation_pb2.OperationState.Name(final.state).removeprefix("OPERATION_STATE_")
        self.report.outcomes[state] += 1
        if not final.HasField("end_time"):
            raise NotTrueError(f"stuck: {final}")

    async def _at_rest(self) -> list[pb.Instance]:
        """Wait until what is shown is what is there; nobody asks for anything meanwhile."""
        client, host = self._world.client, self._world.host
        give_up = time.monotonic() + _REST_S
        while True:
            stream = client.events.WatchEvents(host_pb2.WatchEventsRequest(), wait_for_ready=True)
            try:
                await stream.initial_metadata()
                while True:
                    instances = await client.list()
                    wrong = truth.disagreements(instances, host)
                    if not wrong:
                        return instances
                    async with asyncio.timeout(max(0.0, give_up - time.monotonic())):
                        if await stream.read() is None:
                            break
            except TimeoutError:
                raise NotTrueError(
                    "\n".join([f"round {self._number} of seed {self._seed}, never at rest:", *wrong])
                ) from None
            finally:
                stream.cancel()

    def _unexplained(self, wishes: list[Wish], harmed: set[str]) -> list[str]:
        """Return the operations that did not succeed though nothing was done to them that excuses it."""
        found = []
        for wish in wishes:
            operation = wish.operation
            if operation is None:
                continue
            if operation.needs_attention:
                found.append(f"{wish.verb} of {wish.name} needs attention: {operation}")
            excused = wish.meddled or wish.instance_id in harmed or self._deadlines_void
            if operation.state != operation_pb2.OPERATION_STATE_SUCCEEDED and not excused:
                found.append(f"{wish.verb} of {wish.name} did not succeed: {operation.error} {operation.id}")
        return found

    def _arm_next(self) -> None:
        self._strike = self._waiting.pop(0) if self._waiting else None
        self._calls = 0

    def _reached(self, point: str, machine_id: str) -> Awaitable[None] | None:
        """Consider the armed strike at a point of a peer."""
        self._calls += 1
        strike = self._strike
        if strike is None or self._calls <= strike.after_calls:
            return None
        patient = self._calls <= strike.after_calls + _PATIENCE_CALLS
        if strike.fault is not Fault.CONTROLLER_AT_MOMENT and patient and point != strike.call:
            return None
        self._arm_next()
        return self._hit(strike, machine_id)

    async def _hit(self, strike: Strike, machine_id: str) -> None:
        world, fault = self._world, strike.fault
        match fault:
            case Fault.CONTROLLER_AT_MOMENT:
                self._moment = strike
                world.controller.arm(strike.moment)
                return
            case Fault.CONTROLLER_AT_CALL:
                self._moment = strike
                world.controller.kill()
                return
            case Fault.CANCEL | Fault.SUPERSEDE:
                self._last(self._meddle(fault))
                return
            case Fault.CONTROLLER_FROZEN:
                self._count(fault, None)
                self._last(self._freeze(strike.seconds))
            case Fault.RUNNER_CUT:
                self._count(fault, world.runner.life.busy() | {machine_id})
                world.to_runner.cut()
            case Fault.RUNNER_KILLED:
                self._count(fault, world.runner.life.busy() | {machine_id})
                world.to_runner.leave()
                world.runner.crash()
                self._last(self._come_back(world.to_runner.come_back, strike.seconds))
            case Fault.RUNNER_SLOW:
                self._count(fault, {machine_id})
                await asyncio.sleep(strike.seconds)
            case Fault.STORE_CUT:
                self._count(fault, {machine_id})
                world.to_store.cut()
            case Fault.STORE_KILLED:
                self._count(fault, {machine_id})
                world.to_store.leave()
                self._last(self._come_back(world.to_store.come_back, strike.seconds))
            case Fault.VM_HOST_KILLED:
                self._count(fault, None)
                world.host.end_all("VM_HOST_EXITED")
            case Fault.QEMU_KILLED:
                if world.host.end(machine_id, "QEMU_EXITED", signal=9):
                    self._count(fault, {machine_id})
            case Fault.GUEST_OFF:
                if world.host.end(machine_id, "GUEST_SHUTDOWN"):
                    self._count(fault, {machine_id})
            case Fault.DATABASE_LOCKED:
                self._count(fault, None)
                self._last(world.lock_database(strike.seconds))
            case Fault.CLOCK_STEPPED:
                self._count(fault, None)
                self._deadlines_void = True
                world.controller.step_clock(self._rng.choice((-_HOUR_S, 0.0, _HOUR_S)))

    def _died(self) -> None:
        """Count what the dead controller had at work; nothing runs while this does."""
        strike, self._moment = self._moment, None
        if strike is not None:
            self._count(strike.fault, None)

    def _count(self, fault: Fault, subjects: set[str] | None) -> None:
        self.report.strikes[fault] += 1
        self.report.cells.update(self._world.cells(fault, subjects))

    def _last(self, work: Awaitable[None]) -> None:
        """Have something go on beside the call that it struck; the round waits for its end."""
        task = asyncio.ensure_future(work)
        self._lasting.add(task)
        task.add_done_callback(self._lasting.discard)

    async def _freeze(self, seconds: float) -> None:
        try:
            with self._world.controller.frozen():
                await asyncio.sleep(seconds)
        except ProcessLookupError:
            # Another strike was faster.
            return

    async def _come_back(self, back: Callable[[], None], seconds: float) -> None:
        await asyncio.sleep(seconds)
        back()

    async def _meddle(self, fault: Fault) -> None:
        """Cancel, or supersede by force, some of what is at work."""
        world, rng = self._world, self._rng
        at_work = world.at_work()
        begun = [wish for wish in self._wishes.values() if wish.operation and wish.operation.id in at_work]
        for wish in rng.sample(begun, min(len(begun), 8)):
            wish.meddled = True
            operation = wish.operation
            if operation is None:
                continue
            subject = at_work[operation.id][3]
            self._count(fault, {subject})
            try:
                if fault is Fault.CANCEL:
                    request = operation_pb2.CancelOperationRequest(id=operation.id)
                    await world.client.patiently(
                        lambda request=request: world.client.operations.CancelOperation(request, timeout=30)  # type: ignore[misc]
                    )
                    continue
                verb = rng.choice(("force-stop", "force-delete"))
                mutation = await world.client.ask(verb, wish.name, f"over-{wish.key}")
                if mutation.HasField("operation"):
                    final = await world.client.ended(mutation.operation.id)
                    if not final.HasField("end_time"):
                        raise NotTrueError(f"stuck: {final}")
            except Refused as exc:
                self.report.refusals[exc.reason] += 1
