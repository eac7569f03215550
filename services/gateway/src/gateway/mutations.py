"""How a change is answered: the operation at once, or its outcome under `Prefer: wait` (RFC 7240)."""

import time
from collections.abc import Sequence
from typing import Final

from qcontroller.controller.v1 import instance_pb2, operation_pb2
from starlette.responses import Response

from gateway.answers import json_response
from gateway.backends import CONTROLLER, DEADLINE_S, Backends, ask
from gateway.calls import Call
from gateway.convert import operation_json, to_json
from gateway.errors import OperationFailedError, PeerUnavailableError

_RETRIES: Final = 5
# Kinds after which there is no instance to show, and kinds after which there is a new one.
_LEAVING_NOTHING: Final = frozenset({"delete", "discard"})
_MAKING: Final = frozenset({"launch", "import"})
UNFINISHED: Final = (
    operation_pb2.OPERATION_STATE_PENDING,
    operation_pb2.OPERATION_STATE_RUNNING,
    operation_pb2.OPERATION_STATE_UNDOING,
)


class Mutations:
    """Answers mutations that the controller has accepted."""

    def __init__(self, peers: Backends) -> None:
        self._peers = peers

    async def answer(
        self, call: Call, mutation: instance_pb2.Mutation, *, notes: Sequence[str] = ()
    ) -> Response:
        """Return 202 with the operation, or what became of it within the time that the client prefers.

        Raises:
            OperationFailedError: It was waited for and did not succeed.
        """
        wait_s = call.wait_s
        headers = {"Idempotency-Replayed": "true"} if mutation.replayed else {}
        if wait_s is not None:
            headers["Preference-Applied"] = f"wait={wait_s}"
        if not mutation.HasField("operation"):
            return self._instance(mutation.instance, headers, notes)
        operation = mutation.operation
        if wait_s is not None:
            operation = await self.finished(operation, wait_s)
            if operation.state == operation_pb2.OPERATION_STATE_SUCCEEDED:
                return await self._done(operation, headers, notes)
            if operation.state not in UNFINISHED:
                raise failure_of(operation, headers)
        return self.accepted(operation, headers, notes)

    async def finished(self, operation: operation_pb2.Operation, wait_s: int) -> operation_pb2.Operation:
        """Return `operation` when it has ended, or as it is after `wait_s`.

        The controller may be restarted meanwhile: the operation is durable, so the wait goes on.
        """
        end = time.monotonic() + wait_s
        for _ in range(_RETRIES):
            remaining_s = max(end - time.monotonic(), 0)
            request = operation_pb2.WaitOperationRequest(
                id=operation.id, timeout=f"{int(remaining_s * 1000)}ms"
            )
            try:
                answer = await ask(
                    CONTROLLER,
                    self._peers.operations.WaitOperation,
                    request,
                    deadline_s=remaining_s + DEADLINE_S,
                    wait_for_ready=True,
                )
            except PeerUnavailableError:
                if time.monotonic() >= end:
                    break
                continue
            return answer.operation
        return operation

    def accepted(
        self, operation: operation_pb2.Operation, headers: dict[str, str], notes: Sequence[str] = ()
    ) -> Response:
        """Return 202 with the operation and its URL."""
        document = operation_json(operation)
        if notes:
            document["notes"] = list(notes)
        return json_response(document, 202, {**headers, "Location": f"/v1/operations/{operation.id}"})

    async def _done(
        self, operation: operation_pb2.Operation, headers: dict[str, str], notes: Sequence[str]
    ) -> Response:
        if operation.kind in _LEAVING_NOTHING:
            return Response(status_code=204, headers=headers)
        request = instance_pb2.GetInstanceRequest(name=operation.instance)
        answer = await ask(CONTROLLER, self._peers.instances.GetInstance, request)
        if operation.kind in _MAKING:
            headers |= {"Location": f"/v1/instances/{operation.instance}"}
            return self._instance(answer.instance, headers, notes, status=201)
        return self._instance(answer.instance, headers, notes)

    def _instance(
        self,
        instance: instance_pb2.Instance,
        headers: dict[str, str],
        notes: Sequence[str],
        *,
        status: int = 200,
    ) -> Response:
        document = to_json(instance)
        if notes:
            document["notes"] = list(notes)
        return json_response(document, status, {**headers, "ETag": f'"{instance.etag}"'})


def failure_of(operation: operation_pb2.Operation, headers: dict[str, str]) -> OperationFailedError:
    """Return the error of an operation that has ended without success."""
    state = operation_pb2.OperationState.Name(operation.state).removeprefix("OPERATION_STATE_")
    error = OperationFailedError(
        operation.id, state, operation.error.reason, operation.error.detail, operation.error.metadata
    )
    error.headers |= headers
    return error
