"""The walk forward: each step looks, does and verifies.

It owns the order of looking, saving and doing. It must never do before the entering of the step is durable.
"""

from opentelemetry.trace import Status, StatusCode, Tracer

from controller.operations.attempt import Driver, Interrupted, RetryPolicy
from controller.operations.errors import NotYet, Permanent, Problem
from controller.operations.hold import Hold
from controller.operations.plan import Look, Plan, Step
from controller.operations.state import StageState
from controller.operations.step_context import Budget, RunningStep


async def walk_forward(hold: Hold, driver: Driver, plan: Plan, budget: Budget, tracer: Tracer) -> None:
    """Bring every step's goal about, in order; the caller settles.

    Raises:
        Permanent: If a step cannot.
        Interrupted: On order.
        LostLease: If the row is no longer ours.
    """
    for step in plan.steps:
        driver.boundary()
        await _StepWalk(hold, driver, plan, budget, step).take(tracer)


class _StepWalk:
    def __init__(self, hold: Hold, driver: Driver, plan: Plan, budget: Budget, step: Step) -> None:
        self._hold = hold
        self._driver = driver
        self._plan = plan
        self._budget = budget
        self._step = step

    async def take(self, tracer: Tracer) -> None:
        hold, name = self._hold, self._step.name
        began, result = hold.clock.monotonic(), "failed"
        policy = RetryPolicy(self._plan.kind, self._plan.max_step_failures, self._count, self._wait_told)
        failures = hold.operation.step_failures if hold.operation.step == name else 0
        with tracer.start_as_current_span(f"step {name}", record_exception=False) as span:
            try:
                await self._driver.retry(self._reach, policy, failures=failures)
                result = "done"
            except Interrupted as exc:
                result = exc.reason.value
                raise
            except Permanent as exc:
                span.set_status(Status(StatusCode.ERROR, exc.problem.reason))
                raise
            finally:
                elapsed_s = hold.clock.monotonic() - began
                hold.metrics.step_seconds.labels(self._plan.kind, name, result).observe(elapsed_s)

    async def _reach(self) -> None:
        hold, step = self._hold, self._step
        ctx = RunningStep(hold, self._budget)
        entered = step.name in hold.operation.entered_steps
        hold.fail_point(f"step.{step.name}.before_look")
        if self._is_done(await step.look(ctx)):
            # Done without our doing: not ours to undo.
            hold.mark(step.name, StageState.SUCCEEDED if entered else StageState.SKIPPED)
            return
        if not entered or hold.operation.step != step.name:
            facts = hold.operation.facts
            allocated = {} if entered else await step.allocate(ctx)
            hold.mark(step.name, StageState.RUNNING)
            hold.fail_point(f"step.{step.name}.before_enter")
            await hold.save(
                step=step.name,
                step_failures=0,
                entered_steps=[*hold.operation.entered_steps, *([] if entered else [step.name])],
                facts={**allocated, **facts},
                progress=None,
            )
        hold.fail_point(f"step.{step.name}.before_do")
        await step.do(ctx)
        hold.fail_point(f"step.{step.name}.after_do")
        if not self._is_done(await step.verify(ctx)):
            message = f"Step {step.name} has acted but its goal does not hold yet."
            raise NotYet(Problem("STEP_NOT_DONE", message))
        hold.mark(step.name, StageState.SUCCEEDED)

    def _is_done(self, look: Look) -> bool:
        match look:
            case Look.DONE:
                return True
            case Look.ABSENT | Look.PARTIAL:
                return False
            case Look.BUSY:
                message = f"Step {self._step.name} waits for an action that still runs."
                raise NotYet(Problem("SUBJECT_BUSY", message))
            case Look.FOREIGN:
                message = f"Step {self._step.name} found an object of another owner in its place."
                raise Permanent(Problem("FOREIGN_OBJECT", message, {"step": self._step.name}))

    async def _wait_told(self) -> None:
        problem = self._driver.last_problem
        if problem is not None:
            self._hold.note(f"{self._step.name}: {problem.message} ({problem.reason}) It is tried again.")
        await self._hold.flush()

    async def _count(self, failures: int) -> None:
        await self._hold.save(step_failures=failures)
