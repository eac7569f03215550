"""What the engine gives to a step: the `StepContext` of one step in one claim.

It owns nothing; a context that outlives its claim can no longer save.
"""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from opentelemetry import propagate

from controller.operations.hold import Hold
from controller.operations.operation import OperationId, Progress
from controller.operations.state import State

_log = logging.getLogger("controller.operations.steps")

_LEAST_TIMEOUT_S = 0.05


@dataclass(frozen=True, slots=True)
class Budget:
    """How long a walk may take.

    Attributes:
        deadline: By the wall clock, to be shown and sent.
        monotonic: By the monotonic clock, to be measured against.
    """

    deadline: datetime
    monotonic: float


class RunningStep:
    """Implements `StepContext` over the run's hold."""

    def __init__(self, hold: Hold, budget: Budget) -> None:
        self._hold = hold
        self._budget = budget
        self._fence = hold.operation.fence
        self._undoing = hold.operation.state is State.UNDOING

    @property
    def operation_id(self) -> OperationId:
        return self._hold.operation.id

    @property
    def subject(self) -> str:
        return self._hold.operation.subject

    @property
    def spec(self) -> Mapping[str, Any]:
        return self._hold.operation.spec

    @property
    def facts(self) -> Mapping[str, Any]:
        return self._hold.operation.facts

    @property
    def fence(self) -> int:
        return self._fence

    @property
    def attempt(self) -> int:
        return self._hold.operation.attempt

    @property
    def deadline(self) -> datetime:
        return self._budget.deadline

    @property
    def remaining_s(self) -> float:
        return max(_LEAST_TIMEOUT_S, self._budget.monotonic - self._hold.clock.monotonic())

    @property
    def undoing(self) -> bool:
        return self._undoing

    @property
    def cancel_requested(self) -> bool:
        return self._hold.operation.cancel_requested_at is not None

    @property
    def traceparent(self) -> str:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier.get("traceparent", "")

    async def save_facts(self, **facts: Any) -> None:
        await self._hold.save_facts(facts, self._fence)

    def progress(self, done: int, total: int, unit: str) -> None:
        self._hold.report(Progress(done, total, unit), self._fence)

    def aside(self) -> AbstractContextManager[None]:
        return self._hold.aside()

    def log(self, line: str) -> None:
        operation = self._hold.operation
        self._hold.note(line)
        _log.info(
            "step",
            extra={
                "operation": operation.id,
                "subject": operation.subject,
                "step": operation.step,
                "line": line,
            },
        )
