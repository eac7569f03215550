"""Errors on the wire: google.rpc.Status with ErrorInfo, and BadRequest for faults of the input.

A service raises its own exceptions; its table turns each into an `RpcProblem`, and nothing else crosses
the wire. What no table knows becomes INTERNAL with no detail: that stands in the log, under the trace id.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

DOMAIN: Final = "qcontroller"
DETAILS_KEY: Final = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class Violation:
    """One fault of the input: a JSON pointer (RFC 6901) into the request and what is wrong there."""

    pointer: str
    detail: str


@dataclass(frozen=True, slots=True)
class RpcProblem(Exception):  # noqa: N818 - it is what the peer is told, an error only to Python
    """What a caller is told: a gRPC code, a stable reason, a sentence, data, faults of the input."""

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[Violation, ...] = ()

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


INTERNAL_PROBLEM: Final = RpcProblem(grpc.StatusCode.INTERNAL, "INTERNAL", "Internal error.")


def encode(problem: RpcProblem) -> bytes:
    """Return `problem` as the serialised google.rpc.Status of the trailing metadata."""
    status = status_pb2.Status(code=problem.code.value[0], message=problem.message)
    info = error_details_pb2.ErrorInfo(reason=problem.reason, domain=DOMAIN, metadata=problem.metadata)
    _pack(status, info)
    if problem.violations:
        bad_request = error_details_pb2.BadRequest()
        for violation in problem.violations:
            bad_request.field_violations.add(field=violation.pointer, description=violation.detail)
        _pack(status, bad_request)
    return status.SerializeToString()


def decode(error: grpc.aio.AioRpcError) -> RpcProblem:
    """Return what the peer said; a peer that is away or too slow gets its gRPC code as the reason."""
    raw = next((value for key, value in error.trailing_metadata() or () if key == DETAILS_KEY), None)
    if isinstance(raw, bytes):
        status = status_pb2.Status.FromString(raw)
        info = error_details_pb2.ErrorInfo()
        bad_request = error_details_pb2.BadRequest()
        for detail in status.details:
            if detail.TypeName() == "google.rpc.ErrorInfo":
                detail.Unpack(info)
            elif detail.TypeName() == "google.rpc.BadRequest":
                detail.Unpack(bad_request)
        if info.domain == DOMAIN:
            return RpcProblem(
                error.code(),
                info.reason,
                status.message,
                dict(info.metadata),
                tuple(Violation(v.field, v.description) for v in bad_request.field_violations),
            )
    return RpcProblem(error.code(), error.code().name, error.details() or error.code().name)


def is_unreachable(problem: RpcProblem) -> bool:
    """Tell whether the peer itself was away, as opposed to its saying that something else is."""
    return problem.reason in {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"}


def _pack(
    status: status_pb2.Status, detail: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest
) -> None:
    packed = AnyMessage()
    packed.Pack(detail)
    status.details.append(packed)
