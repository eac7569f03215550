"""One claimed operation being carried out to its end.

It owns the decision what follows an interrupt or a failure: on, back, or let go. Steps are `walk`'s and
`undo`'s, rows are `hold`'s.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta

from opentelemetry.trace import Span, Status, StatusCode, Tracer

from controller.operations.attempt import Driver, Interrupt, Interrupted
from controller.operations.errors import LostLease, Permanent, Problem, ShutOut
from controller.operations.hold import Hold
from controller.operations.ledger import DEADLINE_EXCEEDED, INTERNAL, STALE_FENCE
from controller.operations.operation import Operation
from controller.operations.plan import Plan
from controller.operations.state import State, Trigger
from controller.operations.step_context import Budget, RunningStep
from controller.operations.tracing import operation_span
from controller.operations.undo import walk_back
from controller.operations.walk import walk_forward

_log = logging.getLogger(__name__)

_WITNESS_S = 12.0


class Run:
    """Carries one claim until the operation has ended, was lost, or was let go of."""

    def __init__(self, hold: Hold, plan: Plan, tracer: Tracer) -> None:
        self._hold = hold
        self._plan = plan
        self._tracer = tracer
        self._driver = Driver(hold.clock, hold.metrics, hold.settled, hold.require_lease)

    @property
    def operation(self) -> Operation:
        """The row as the run last saw it."""
        return self._hold.operation

    @property
    def is_aside(self) -> bool:
        """Whether it waits without taking a slot."""
        return self._hold.is_aside

    def told_aside(self, listener: Callable[[], None]) -> None:
        """Call `listener` when it begins to wait so."""
        self._hold.on_aside = listener

    def changed(self, fence: int) -> None:
        """Tell that another transaction moved the row to `fence`; nothing to do if that was seen already."""
        if self.operation.fence < fence:
            self._driver.interrupt(Interrupt.CHANGED)

    def stop_at_boundary(self) -> None:
        """Give the row back as soon as the step at work has ended."""
        self._driver.stop_at_boundary()

    def stop_now(self) -> None:
        """End the step at work and give the row back."""
        self._driver.interrupt(Interrupt.STOP)

    async def execute(self) -> None:
        """Work. Cancelling this task leaves the row as it is, as a crash would."""
        with operation_span(self._tracer, self.operation) as span:
            try:
                while await self._work(span):
                    pass
            finally:
                self._hold.close()

    async def _work(self, span: Span) -> bool:
        """Walk once; return whether there is more to do."""
        hold = self._hold
        try:
            await self._walk_within_budget()
        except LostLease as exc:
            hold.metrics.lost_leases.inc()
            fence = self.operation.fence
            if not await hold.refresh():
                return False
            if isinstance(exc, ShutOut) and self.operation.fence == fence:
                # Nobody here has moved the row: who refuses the fence was told a higher one by another
                # database. Trying again would be refused for ever.
                await self._shut_out(Problem(STALE_FENCE, str(exc)))
            return not hold.released
        except Interrupted as exc:
            if exc.reason is Interrupt.STOP:
                await hold.release(hold.clock.now())
                return False
            return await hold.refresh()
        except Exception:  # noqa: BLE001 - a defect must not keep the row owned
            # A defect (of a hook, say): the row must neither stay owned for ever nor be tried in a tight
            # circle.
            _log.exception("run failed", extra={"operation": self.operation.id, "kind": self._plan.kind})
            await hold.let_go(Problem(INTERNAL, "Internal error."))
        if self.operation.error is not None:
            span.set_status(Status(StatusCode.ERROR, self.operation.error.reason))
        return not hold.released

    async def _walk_within_budget(self) -> None:
        hold, operation = self._hold, self.operation
        self._driver.begin_walk()
        now = hold.clock.now()
        undoing = operation.state is State.UNDOING
        limit = (
            operation.undo_deadline if undoing and operation.undo_deadline is not None else operation.deadline
        )
        # A slow retry comes after the deadline by nature: it gets one try of fixed length.
        budget_s = (
            self._plan.undo_deadline_s
            if operation.needs_attention
            else max(0.0, (limit - now).total_seconds())
        )
        budget = Budget(now + timedelta(seconds=budget_s), hold.clock.monotonic() + budget_s)
        watch = asyncio.ensure_future(self._interrupt_after(budget_s))
        try:
            await (self._back(budget) if undoing else self._forward(budget))
        finally:
            watch.cancel()

    async def _interrupt_after(self, budget_s: float) -> None:
        await self._hold.clock.sleep(budget_s)
        self._driver.interrupt(Interrupt.DEADLINE)

    async def _forward(self, budget: Budget) -> None:
        try:
            await walk_forward(self._hold, self._driver, self._plan, budget, self._tracer)
        except Permanent as exc:
            await self._failed(exc.problem)
        except Interrupted as exc:
            if exc.reason is not Interrupt.DEADLINE:
                raise
            await self._failed(self._too_late())
        else:
            await self._hold.settle(Trigger.SUCCEED, None)

    async def _failed(self, problem: Problem) -> None:
        self._hold.note(f"Failed: {problem.message} ({problem.reason})")
        await self._witness(problem)
        entered = self.operation.entered_steps
        if self._plan.past_return(entered):
            await self._hold.let_go(problem)
        elif self._plan.keeps(entered):
            await self._hold.settle(Trigger.FAIL, problem)
        else:
            await self._hold.turn_round(problem)

    async def _witness(self, problem: Problem) -> None:
        """Keep what can be seen now: undoing takes it away."""
        if self._plan.witness is None:
            return
        clock = self._hold.clock
        budget = Budget(clock.now() + timedelta(seconds=_WITNESS_S), clock.monotonic() + _WITNESS_S)
        try:
            async with asyncio.timeout(_WITNESS_S):
                files = await self._plan.witness(RunningStep(self._hold, budget), problem)
            await self._hold.keep_files(files)
        except LostLease:
            raise
        except Exception:  # noqa: BLE001 - evidence must not decide how an operation ends
            _log.exception("no evidence was kept", extra={"operation": self.operation.id})

    async def _back(self, budget: Budget) -> None:
        try:
            await walk_back(self._hold, self._driver, self._plan, budget, self._tracer)
        except Permanent as exc:
            await self._hold.let_go(exc.problem)
        except Interrupted as exc:
            if exc.reason is not Interrupt.DEADLINE:
                raise
            await self._hold.let_go(self._too_late())
        else:
            outcome = Trigger.FAIL if self.operation.outcome is State.FAILED else Trigger.CANCEL
            await self._hold.settle(outcome, None)

    async def _shut_out(self, problem: Problem) -> None:
        if await self._hold.is_behind():
            # Another fence waits for it.
            await self._hold.release(self._hold.clock.now())
        elif self.operation.state is State.UNDOING:
            await self._hold.let_go(problem)
        else:
            await self._failed(problem)

    def _too_late(self) -> Problem:
        cause = self._driver.last_problem
        metadata = {"step": self.operation.step}
        if cause is not None:
            metadata |= {"cause": cause.reason, "causeMessage": cause.message}
        return Problem(DEADLINE_EXCEEDED, "The operation did not finish before its deadline.", metadata)
