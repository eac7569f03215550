"""Operations as messages of the contract and as REST shows them in events."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from qcontroller.controller.v1 import instance_pb2
from qcontroller.controller.v1 import operation_pb2 as pb
from servicekit.telemetry import trace_id_of

from controller.instances.image_imports import IMPORT_IMAGE
from controller.instances.submitting import Mutated
from controller.operations import Operation, PublicState, Stage, StageState
from controller.plans.power_steps import POWER_OFF
from controller.records.documents import Document, time_text
from controller.servicers.convert import instance_message, time_message

_NOT_FAILING: Final = frozenset({PublicState.PENDING.value, PublicState.RUNNING.value})
_UNFINISHED: Final = _NOT_FAILING | {PublicState.UNDOING.value}


def operation_message(operation: Operation) -> pb.Operation:
    """Return an operation."""
    message = pb.Operation(
        id=operation.id,
        kind=operation.kind,
        instance=operation.subject_name,
        initiator=operation.initiator.value,
        state=pb.OperationState.Value(f"OPERATION_STATE_{operation.public_state}"),
        stages=[_stage(stage) for stage in stages_of(operation)],
        result=_result(operation),
        create_time=time_message(operation.created_at),
        start_time=_time(operation.started_at),
        end_time=_time(operation.finished_at),
        trace_id=trace_id_of(operation.traceparent),
        needs_attention=operation.needs_attention,
        deadline=time_message(operation.deadline),
        log=[pb.LogLine(time=time_message(line.time), message=line.message) for line in operation.log],
        elapsed_ms=_elapsed_ms(operation),
        superseded_by=operation.superseded_by,
        supersedes=operation.supersedes,
    )
    if operation.progress is not None:
        progress = operation.progress
        message.progress.CopyFrom(pb.Progress(done=progress.done, total=progress.total, unit=progress.unit))
    problem = _problem(operation)
    if problem is not None:
        message.error.CopyFrom(
            pb.Problem(reason=problem["reason"], detail=problem["detail"], metadata=problem["metadata"])
        )
    return message


def mutation_message(mutated: Mutated) -> instance_pb2.Mutation:
    """Return how a mutation is answered."""
    operation = None if mutated.operation is None else operation_message(mutated.operation)
    instance = None if mutated.instance is None else instance_message(mutated.instance)
    return instance_pb2.Mutation(operation=operation, instance=instance, replayed=mutated.replayed)


def operation_document(operation: Operation, state: str = "") -> Document:
    """Return an operation as REST shows it.

    `state` is what an event told, if it is an earlier one: what came later than that is left out.
    """
    document: Document = {
        "id": operation.id,
        "kind": operation.kind,
        "instance": operation.subject_name,
        "initiator": operation.initiator.value,
        "state": state or operation.public_state.value,
        "stages": [_stage_document(stage) for stage in stages_of(operation)],
        "result": _result(operation),
        "createTime": time_text(operation.created_at),
        "traceId": trace_id_of(operation.traceparent),
        "needsAttention": operation.needs_attention,
        "deadline": time_text(operation.deadline),
        "log": [{"time": time_text(line.time), "message": line.message} for line in operation.log],
        "elapsedMs": _elapsed_ms(operation),
        "supersededBy": operation.superseded_by,
        "supersedes": list(operation.supersedes),
    }
    if operation.progress is not None:
        progress = operation.progress
        document["progress"] = {"done": progress.done, "total": progress.total, "unit": progress.unit}
    ended = None if state in _UNFINISHED else operation.finished_at
    for key, moment in (("startTime", operation.started_at), ("endTime", ended)):
        if moment is not None:
            document[key] = time_text(moment)
    problem = None if state in _NOT_FAILING else _problem(operation)
    if problem is not None:
        document["error"] = problem
    return document


def stages_of(operation: Operation) -> Iterator[Stage]:
    """Yield the steps, and behind the one that powers off what it did to the guest, in order."""
    for stage in operation.stages:
        yield stage
        if stage.name == POWER_OFF:
            yield from _shown(operation, stage)


def _result(operation: Operation) -> str:
    if operation.kind == IMPORT_IMAGE:
        return f"/v1/images/{operation.spec['name']}"
    return f"/v1/instances/{operation.subject_name}"


def _shown(operation: Operation, parent: Stage) -> Iterator[Stage]:
    shown: list[dict[str, Any]] = list(operation.facts.get("shown", ()))
    for index, entry in enumerate(shown):
        start = datetime.fromisoformat(entry["time"])
        if index + 1 < len(shown):
            # The next one began because this one did not do.
            end = datetime.fromisoformat(shown[index + 1]["time"])
            yield Stage(entry["name"], StageState.FAILED, start, _between(start, end))
        elif parent.start_time is None or parent.duration_ms is None:
            yield Stage(entry["name"], parent.state, start)
        else:
            before_ms = _between(parent.start_time, start)
            yield Stage(entry["name"], parent.state, start, max(0, parent.duration_ms - before_ms))


def _elapsed_ms(operation: Operation) -> int:
    return _between(operation.created_at, operation.finished_at or datetime.now(UTC))


def _between(start: datetime, end: datetime) -> int:
    return max(0, int((end - start).total_seconds() * 1000))


def _problem(operation: Operation) -> Document | None:
    if operation.error is None:
        if operation.public_state is not PublicState.CANCELLED:
            return None
        return {"reason": "OPERATION_CANCELLED", "detail": "The operation was cancelled.", "metadata": {}}
    error = operation.error
    return {"reason": error.reason, "detail": error.message, "metadata": dict(error.metadata)}


def _stage(stage: Stage) -> pb.Stage:
    return pb.Stage(
        name=stage.name,
        state=pb.StageState.Value(f"STAGE_STATE_{stage.state}"),
        start_time=_time(stage.start_time),
        duration_ms=stage.duration_ms or 0,
    )


def _stage_document(stage: Stage) -> Document:
    document: Document = {
        "name": stage.name,
        "state": stage.state.value,
        "durationMs": stage.duration_ms or 0,
    }
    if stage.start_time is not None:
        document["startTime"] = time_text(stage.start_time)
    return document


def _time(moment: datetime | None) -> Any:
    return None if moment is None else time_message(moment)
