"""The walk back: entered steps in reverse, each looks, undoes and verifies.

It owns what an ending operation takes back. It must never touch what the operation did not enter or does not
own.
"""

from opentelemetry.trace import Tracer

from controller.operations.attempt import Driver, RetryPolicy
from controller.operations.errors import NotYet, Permanent, Problem
from controller.operations.hold import Hold
from controller.operations.plan import Look, Plan, ReversibleStep
from controller.operations.state import StageState
from controller.operations.step_context import Budget, RunningStep


async def walk_back(hold: Hold, driver: Driver, plan: Plan, budget: Budget, tracer: Tracer) -> None:
    """Take back what the entered steps made; the caller settles.

    Raises:
        Permanent: If a step cannot be undone, or failed too often.
        Interrupted: On order.
        LostLease: If the row is no longer ours.
    """
    policy = RetryPolicy(plan.kind, plan.max_step_failures, _do_not_count, hold.flush)
    quiesce = None if hold.abandoned else plan.quiesce
    if quiesce is not None and hold.operation.entered_steps:
        with tracer.start_as_current_span("quiesce", record_exception=False):
            await driver.retry(lambda: _quiesced(hold, budget, plan), policy)
    for name in reversed(hold.operation.entered_steps):
        driver.boundary()
        if hold.abandoned:
            # A successor has taken over what is left.
            return
        step = plan.step(name)
        if step is None:
            message = f"This build does not know step {name}, which the operation has entered."
            raise Permanent(Problem("UNDO_UNKNOWN_STEP", message, {"step": name}))
        if isinstance(step, ReversibleStep):
            reversible = step
            with tracer.start_as_current_span(f"undo {name}", record_exception=False):
                hold.fail_point(f"undo.{name}.before")
                await driver.retry(lambda: _undone(hold, budget, reversible), policy)  # noqa: B023 - awaited here
                hold.fail_point(f"undo.{name}.after")
            hold.mark(name, StageState.UNDONE)
            hold.note(f"{name}: undone")
            await hold.flush()


async def _quiesced(hold: Hold, budget: Budget, plan: Plan) -> None:
    if plan.quiesce is not None:
        await plan.quiesce(RunningStep(hold, budget))


async def _undone(hold: Hold, budget: Budget, step: ReversibleStep) -> None:
    ctx = RunningStep(hold, budget)
    if _is_gone(step, await step.look(ctx)):
        return
    await step.undo(ctx)
    if not _is_gone(step, await step.verify_undone(ctx)):
        raise NotYet(
            Problem("STEP_NOT_UNDONE", f"Step {step.name} was undone but its object is still there.")
        )


def _is_gone(step: ReversibleStep, look: Look) -> bool:
    match look:
        case Look.ABSENT | Look.FOREIGN:
            return True
        case Look.DONE | Look.PARTIAL:
            return False
        case Look.BUSY:
            raise NotYet(
                Problem("SUBJECT_BUSY", f"Undoing step {step.name} waits for an action that still runs.")
            )


async def _do_not_count(failures: int) -> None:
    # The row counts slow retries only; within one attempt the count is the driver's own.
    del failures
