"""One action at a time on each fake machine, by the real runner's rules, and the watchers' queues.

This is the memory of one life of a runner: `crash` loses it, in the middle of whatever is at work.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.message import Message
from qcontroller.runner.v1 import runner_pb2 as pb
from qemu_runner.errors import StaleFenceError

from fakerunner.faults import Faults
from fakerunner.host import FakeHost

HEARTBEAT_S: Final = 5.0
Emit = Callable[[Message], None]
Body = Callable[[Emit], Awaitable[None]]


class RunnerCrashed(Exception):  # noqa: N818 - it says what happened
    """The life that the call was made to is over."""


@dataclass(eq=False)
class _Action:
    kind: str
    fencing: pb.Fencing
    abortable: bool
    told: list[Message] = field(default_factory=list)
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    followers: int = 0
    superseded_by: int = 0
    failure: BaseException | None = None
    task: "asyncio.Task[None] | None" = None

    def is_the_same(self, kind: str, fencing: pb.Fencing) -> bool:
        return self.kind == kind and self.fencing == fencing and bool(fencing.request_id)

    def emit(self, part: Message) -> None:
        self.told.append(part)
        self.moved.set()


class Life:
    """One life of the runner before a host.

    Args:
        host: What outlives it.
        faults: What goes wrong.
    """

    def __init__(self, host: FakeHost, faults: Faults) -> None:
        self.host = host
        self.faults = faults
        self.revision = 0
        # Directories of a former life that hold no record count as machines that are being made.
        self.foreign = host.directories - host.machines.keys()
        self._locks: dict[str, asyncio.Lock] = {}
        self._actions: dict[str, list[_Action]] = {}
        self._queues: dict[int, tuple[dict[str, pb.Machine], asyncio.Event]] = {}
        self._revisions: dict[str, int] = {}
        self._over = False
        host.listener = self._told

    async def perform(
        self, kind: str, fencing: pb.Fencing, body: Body, *, abortable: bool = False
    ) -> AsyncIterator[Message]:
        """Run `body` under the machine's lock and fence and yield what it tells.

        A repeated request joins the action in flight; one that nobody follows any more is broken off if that
        is possible.
        """
        action = self._join_or_begin(kind, fencing, body, abortable=abortable)
        action.followers += 1
        position = 0
        task = action.task
        if task is None:
            raise AssertionError("an action has a task")
        try:
            while True:
                finished = task.done()
                while position < len(action.told):
                    position += 1
                    yield action.told[position - 1]
                if finished:
                    break
                action.moved.clear()
                if position == len(action.told) and not task.done():
                    await action.moved.wait()
            if action.failure is not None:
                raise action.failure
            if task.cancelled():
                raise StaleFenceError(fencing.machine_id, fencing.fence, action.superseded_by)
        finally:
            action.followers -= 1
            if not action.followers and not task.done() and action.abortable:
                task.cancel()

    async def raise_fence(self, machine_id: str, fence: int) -> None:
        """Shut out lower fences.

        Raises:
            StaleFenceError: A higher one was seen.
        """
        async with self._locks.setdefault(machine_id, asyncio.Lock()):
            self._compare(machine_id, fence)

    def seen(self, machine_id: str) -> pb.Machine:
        """Return the machine as it is seen now."""
        found = self.host.find(machine_id)
        if found is not None:
            return self._numbered(found)
        phase = pb.MACHINE_PHASE_PREPARING if machine_id in self.foreign else pb.MACHINE_PHASE_ABSENT
        fence = self.host.fences.get(machine_id, 0)
        return self._numbered(pb.Machine(machine_id=machine_id, phase=phase, fence=fence))

    def all(self) -> list[pb.Machine]:
        """Return all machines that have a record, or files without one."""
        return [self.seen(machine_id) for machine_id in [*self.host.machines, *sorted(self.foreign)]]

    async def watch(self) -> AsyncIterator[pb.Machine | None]:
        """Yield every machine, None when that was all, then every change; None again as a heartbeat."""
        waiting: dict[str, pb.Machine] = {}
        woken = asyncio.Event()
        key = id(waiting)
        self._queues[key] = (waiting, woken)
        try:
            for machine in self.all():
                yield machine
            yield None
            while not self._over:
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        await woken.wait()
                except TimeoutError:
                    yield None
                    continue
                woken.clear()
                changed = list(waiting.values())
                waiting.clear()
                for machine in changed:
                    yield machine
            raise RunnerCrashed
        finally:
            self._queues.pop(key, None)

    def busy(self) -> set[str]:
        """Return the machines that an action is at work on or waits for."""
        return set(self._actions)

    def crash(self) -> None:
        """Stop in the middle of everything; only the host remains."""
        self._over = True
        self.host.listener = None
        for actions in self._actions.values():
            for action in actions:
                action.failure = RunnerCrashed()
                if action.task is not None:
                    action.task.cancel()
        for _, woken in self._queues.values():
            woken.set()

    def _join_or_begin(self, kind: str, fencing: pb.Fencing, body: Body, *, abortable: bool) -> _Action:
        if self._over:
            raise RunnerCrashed
        machine_id = fencing.machine_id
        flying = self._actions.setdefault(machine_id, [])
        for other in flying:
            if other.is_the_same(kind, fencing):
                return other
        for other in flying:
            if other.abortable and other.fencing.fence < fencing.fence and other.task is not None:
                other.superseded_by = fencing.fence
                other.task.cancel()
        action = _Action(kind, fencing, abortable)
        flying.append(action)
        action.task = asyncio.get_running_loop().create_task(self._run(action, body))
        action.task.add_done_callback(lambda _: self._finished(machine_id, action))
        return action

    async def _run(self, action: _Action, body: Body) -> None:
        fencing = action.fencing
        try:
            async with self._locks.setdefault(fencing.machine_id, asyncio.Lock()):
                self._compare(fencing.machine_id, fencing.fence)
                await body(action.emit)
        except Exception as exc:  # noqa: BLE001 - kept for whoever follows
            action.failure = exc

    def _finished(self, machine_id: str, action: _Action) -> None:
        flying = self._actions[machine_id]
        flying.remove(action)
        if not flying:
            del self._actions[machine_id]
            lock = self._locks.get(machine_id)
            if lock is not None and not lock.locked() and machine_id not in self.host.machines:
                del self._locks[machine_id]
        action.moved.set()

    def _compare(self, machine_id: str, fence: int) -> None:
        highest = self.host.fences.get(machine_id, 0)
        if fence < highest:
            raise StaleFenceError(machine_id, fence, highest)
        self.host.raise_fence(machine_id, fence)

    def _told(self, machine: pb.Machine) -> None:
        self.revision += 1
        self._revisions[machine.machine_id] = self.revision
        numbered = self._numbered(machine)
        for waiting, woken in self._queues.values():
            waiting[machine.machine_id] = numbered
            woken.set()

    def _numbered(self, machine: pb.Machine) -> pb.Machine:
        numbered = pb.Machine()
        numbered.CopyFrom(machine)
        numbered.fence = self.host.fences.get(machine.machine_id, 0)
        revision = self._revisions.get(machine.machine_id)
        if revision is None:
            self.revision += 1
            revision = self._revisions[machine.machine_id] = self.revision
        numbered.revision = revision
        return numbered
