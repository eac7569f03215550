"""A host that keeps fences and a lock per subject, steps that act on it, and a clock that tests move."""

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from controller.database import Database, Target
from controller.operations import (
    Engine,
    EngineSettings,
    Look,
    Operation,
    OperationId,
    Permanent,
    Plan,
    Problem,
    ReversibleStep,
    StepContext,
    Submission,
)
from controller.operations.rows import engines
from sqlalchemy import delete, event


class FakeClock:
    """Both clocks stand still until `advance`; sleeps of no length return at once."""

    def __init__(self) -> None:
        self.wall = datetime(2030, 1, 1, tzinfo=UTC)
        self.elapsed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0
        self._changed = asyncio.Event()

    def now(self) -> datetime:
        return self.wall + timedelta(seconds=self.elapsed)

    def monotonic(self) -> float:
        return self.elapsed

    async def sleep(self, delay_s: float) -> None:
        if delay_s <= 0:
            await asyncio.sleep(0)
            return
        self._count += 1
        sleeper = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.elapsed + delay_s, self._count, sleeper))
        self._changed.set()
        await sleeper

    def advance(self, delay_s: float) -> None:
        self.elapsed += delay_s
        while self._sleepers and self._sleepers[0][0] <= self.elapsed:
            _, _, sleeper = heapq.heappop(self._sleepers)
            if not sleeper.done():
                sleeper.set_result(None)

    async def until_asleep_for(self, most_s: float) -> float:
        """Wait until somebody sleeps for at most that long; return how long."""
        while True:
            live = [at for at, _, sleeper in self._sleepers if not sleeper.done()]
            due = [at - self.elapsed for at in live if at - self.elapsed <= most_s]
            if due:
                return min(due)
            self._changed.clear()
            await self._changed.wait()


class Crash(BaseException):
    """Raised at a fail point: ends the engine without any of its cleaning up."""


def crash_at(wanted: str) -> Callable[[str], None]:
    def reached(name: str) -> None:
        if name == wanted:
            raise Crash(name)

    return reached


class StaleFence(Exception):  # noqa: N818
    pass


@dataclass
class FakeHost:
    """Objects by (subject, name) with the operation that owns them."""

    objects: dict[tuple[str, str], str] = field(default_factory=dict)
    fences: dict[str, int] = field(default_factory=dict)
    locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    refused: int = 0

    @asynccontextmanager
    async def entered(self, ctx: StepContext) -> AsyncIterator[None]:
        """Hold the subject's lock; compare and keep the fence under it."""
        async with self.locks.setdefault(ctx.subject, asyncio.Lock()):
            if ctx.fence < self.fences.get(ctx.subject, 0):
                self.refused += 1
                raise StaleFence
            self.fences[ctx.subject] = ctx.fence
            yield

    def of(self, subject: str) -> set[str]:
        return {name for owner, name in self.objects if owner == subject}


class Make(ReversibleStep):
    """Makes one object on the host. Tests hook in by `gates` and `faults`."""

    def __init__(self, host: FakeHost, name: str) -> None:
        self.name = name
        self.host = host
        self.reached = asyncio.Event()
        self.gate: asyncio.Event | None = None
        self.faults: list[Exception] = []
        self.undo_faults: list[Exception] = []
        self.look_as: list[Look] = []
        self.attempts: list[int] = []
        self.fences: list[int] = []

    async def look(self, ctx: StepContext) -> Look:
        async with self.host.entered(ctx):
            if self.look_as:
                return self.look_as.pop(0)
            owner = self.host.objects.get((ctx.subject, self.name))
            if owner is None:
                return Look.ABSENT
            return Look.DONE if owner == ctx.operation_id else Look.FOREIGN

    async def do(self, ctx: StepContext) -> None:
        self.reached.set()
        self.attempts.append(ctx.attempt)
        self.fences.append(ctx.fence)
        if self.faults:
            raise self.faults.pop(0)
        async with self.host.entered(ctx):
            self.host.calls.append(f"do {self.name}")
            if self.gate is not None:
                await self.gate.wait()
            self.host.objects[ctx.subject, self.name] = ctx.operation_id

    async def undo(self, ctx: StepContext) -> None:
        if self.undo_faults:
            raise self.undo_faults.pop(0)
        async with self.host.entered(ctx):
            self.host.calls.append(f"undo {self.name}")
            self.host.objects.pop((ctx.subject, self.name), None)


class Hooks:
    """Records what the domain's hooks were told in transactions that committed."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.settled: list[tuple[str, str]] = []

    def start(self, conn: Any, operation: Operation) -> None:
        event.listen(conn, "commit", lambda _: self.started.append(operation.id), once=True)

    def settle(self, conn: Any, operation: Operation, outcome: Any, error: Problem | None) -> None:
        event.listen(conn, "commit", lambda _: self.settled.append((operation.id, outcome.value)), once=True)


@dataclass
class World:
    """One database, a host, and engines that come and go."""

    target: Target
    database: Database
    host: FakeHost = field(default_factory=FakeHost)
    hooks: Hooks = field(default_factory=Hooks)
    clock: FakeClock = field(default_factory=FakeClock)
    steps: list[Make] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    count: int = 0

    def make_plan(
        self, kind: str = "make", names: Iterable[str] = ("a", "b", "c"), **options: Any
    ) -> list[Make]:
        steps = [Make(self.host, name) for name in names]
        self.steps = steps
        plan = Plan(
            kind=kind,
            revision=1,
            steps=tuple(steps),
            on_start=self.hooks.start,
            on_settle=self.hooks.settle,
            **{"deadline_s": 600.0, **options},
        )
        self.plans = [*(known for known in self.plans if known.kind != kind), plan]
        return steps

    def next_id(self) -> OperationId:
        self.count += 1
        return OperationId(f"op-{self.count}")

    def engine(self, **options: Any) -> Engine:
        settings = options.pop("settings", EngineSettings(resync_s=3600.0, trim_every_s=1e9))
        return Engine(
            self.database,
            self.plans,
            clock=self.clock,
            operation_ids=self.next_id,
            settings=settings,
            **options,
        )

    @asynccontextmanager
    async def running(self, **options: Any) -> AsyncIterator[Engine]:
        engine = self.engine(**options)
        task = asyncio.ensure_future(engine.run())
        try:
            yield engine
            await engine.stop()
        finally:
            # Where the test failed, time stands still: a graceful stop would wait for it.
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    @asynccontextmanager
    async def doomed(self, **options: Any) -> AsyncIterator[Engine]:
        """An engine that dies at the end of the block without releasing anything."""
        engine = self.engine(**options)
        task = asyncio.ensure_future(engine.run())
        try:
            yield engine
        finally:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()
            await self.lapse()

    async def lapse(self) -> None:
        """Let the leases of all engines run out, as time would."""
        await self.database.write(lambda conn: conn.execute(delete(engines)))


async def accepted(engine: Engine, prepare: Callable[[Any], Submission] | None = None) -> OperationId:
    """Submit and return the new operation's id."""
    answer = await engine.submit(prepare or wanting())
    assert answer.operation is not None
    return answer.operation.id


def wanting(subject: str = "s1", kind: str = "make", **values: Any) -> Callable[[Any], Submission]:
    """Return a `prepare` that asks for one operation."""
    return lambda conn: Submission(kind=kind, subject=subject, **values)


def permanent(reason: str = "BROKEN") -> Permanent:
    return Permanent(Problem(reason, "It is broken."))


LONG_S = 1e6
