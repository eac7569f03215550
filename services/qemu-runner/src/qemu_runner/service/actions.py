"""One action at a time on each machine, whoever asks and whoever hangs up.

A caller that goes away never leaves an action unattended: what can be broken off is broken off and waited
for, everything else runs to its own deadline. A repeated request joins the action in flight.

Fail points: `runner.<kind>.before` (the fence is kept, nothing done) and `runner.<kind>.after` (all is done,
nobody told), with the kinds prepare, start, stop, pause, resume, reset, delete and quiesce.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable

from servicekit.failpoints import FailPoints, no_fail_points

from qemu_runner.domain.fencing import Fencing
from qemu_runner.domain.machine import MachineId
from qemu_runner.domain.observation import Observation
from qemu_runner.domain.progress import Part
from qemu_runner.errors import RunnerError, StaleFenceError
from qemu_runner.service.machines import Machine, Machines
from qemu_runner.service.tasks import Tasks

_LOG = logging.getLogger(__name__)

Emit = Callable[[Part], None]
Body = Callable[[Machine, Emit], Awaitable[None]]


class _Action:
    """An action in flight, or waiting for its turn."""

    def __init__(self, kind: str, fencing: Fencing, *, abortable: bool) -> None:
        self.kind = kind
        self.fencing = fencing
        self.abortable = abortable
        self.followers = 0
        self.newest: Part | None = None
        self.moved = asyncio.Event()
        self.failure: Exception | None = None
        self.superseded_by = 0
        self.task: asyncio.Task[None]

    def emit(self, part: Part) -> None:
        self.newest = part
        self.moved.set()

    def is_the_same(self, kind: str, fencing: Fencing) -> bool:
        return self.kind == kind and self.fencing == fencing and bool(fencing.request_id)

    def raise_failure(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self.task.cancelled():
            raise StaleFenceError(self.fencing.machine_id, self.fencing.fence, self.superseded_by)


class Actions:
    """Runs actions on machines.

    Args:
        machines: The machines.
        tasks: Owner of the actions' tasks.
        fail_point: Where a test may end the process.
    """

    def __init__(self, machines: Machines, tasks: Tasks, fail_point: FailPoints = no_fail_points) -> None:
        self._machines = machines
        self._tasks = tasks
        self._fail_point = fail_point
        self._in_flight: dict[MachineId, list[_Action]] = {}

    async def perform(
        self, kind: str, fencing: Fencing, body: Body, *, abortable: bool = False
    ) -> Observation:
        """Run `body` under the machine's lock and return what is seen then.

        Raises:
            StaleFenceError: A higher fence was seen.
            RunnerError: Whatever the body raises.
        """
        async with self._machines.using(fencing.machine_id) as machine:
            async for _ in self.stream(kind, fencing, body, abortable=abortable):
                pass
            return self._machines.observation(machine)

    async def stream(
        self, kind: str, fencing: Fencing, body: Body, *, abortable: bool = False
    ) -> AsyncGenerator[Part, None]:
        """Run `body` under the machine's lock and yield what it tells; a slow reader gets the newest."""
        async with self._machines.using(fencing.machine_id) as machine:
            action = self._join_or_begin(machine, kind, fencing, body, abortable=abortable)
            action.followers += 1
            try:
                async for part in _follow(action):
                    yield part
            finally:
                action.followers -= 1
                if not action.followers and not action.task.done() and action.abortable:
                    action.task.cancel()
                    await asyncio.wait({action.task})

    def is_busy(self, machine_id: MachineId) -> bool:
        """Tell whether an action is in flight or waiting."""
        return machine_id in self._in_flight

    def _join_or_begin(
        self, machine: Machine, kind: str, fencing: Fencing, body: Body, *, abortable: bool
    ) -> _Action:
        flying = self._in_flight.setdefault(machine.machine_id, [])
        for other in flying:
            if other.is_the_same(kind, fencing):
                return other
        for other in flying:
            # Its caller has been replaced; what can be broken off is not waited for.
            if other.abortable and other.fencing.fence < fencing.fence:
                other.superseded_by = fencing.fence
                other.task.cancel()
        action = _Action(kind, fencing, abortable=abortable)
        flying.append(action)
        action.task = self._tasks.begin(self._run(machine, action, body), name=f"{kind} {machine.machine_id}")
        action.task.add_done_callback(lambda _: self._finished(machine.machine_id, action))
        return action

    async def _run(self, machine: Machine, action: _Action, body: Body) -> None:
        async with self._machines.using(machine.machine_id):
            try:
                async with machine.lock:
                    await self._machines.raise_fence(machine, action.fencing.fence)
                    self._fail_point(f"runner.{action.kind}.before")
                    await body(machine, action.emit)
                    self._fail_point(f"runner.{action.kind}.after")
            except Exception as exc:  # noqa: BLE001 - kept for whoever follows; it must not count as a defect
                action.failure = exc

    def _finished(self, machine_id: MachineId, action: _Action) -> None:
        flying = self._in_flight[machine_id]
        flying.remove(action)
        if not flying:
            del self._in_flight[machine_id]
        if action.failure is not None and not action.followers:
            known = isinstance(action.failure, RunnerError)
            _LOG.log(
                logging.WARNING if known else logging.ERROR,
                "action failed after its caller had gone",
                exc_info=None if known else action.failure,
                extra={"action": action.kind, "machine": machine_id, "error": str(action.failure)},
            )
        action.moved.set()


async def _follow(action: _Action) -> AsyncGenerator[Part, None]:
    told: Part | None = None
    while True:
        finished = action.task.done()
        newest = action.newest
        if newest is not None and newest != told:
            told = newest
            yield newest
        if finished:
            action.raise_failure()
            return
        if action.newest == told and not action.task.done():
            action.moved.clear()
            await action.moved.wait()
