"""The one table of how the service's errors are answered; what it does not know becomes INTERNAL."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from grpc import StatusCode
from servicekit.rpc_errors import RpcProblem, Violation

from controller import errors
from controller.database import errors as database_errors
from controller.operations import errors as operation_errors

# gRPC code, reason (None: the error's own), and the metadata that its data make.
_Row = tuple[StatusCode, str | None, Callable[[Any], dict[str, str]]]


def _nothing(_error: Exception) -> dict[str, str]:
    return {}


def _operation(error: Any) -> dict[str, str]:
    return {"operation": f"/v1/operations/{error.operation_id}"}


def _shortages(error: errors.HostCapacityExhausted) -> dict[str, str]:
    metadata = {
        "node": error.node,
        "resource": ",".join(shortage.resource.value for shortage in error.shortages),
    }
    for shortage in error.shortages:
        name = shortage.resource.value
        metadata |= {
            f"{name}Asked": str(shortage.asked),
            f"{name}Free": str(shortage.free),
            f"{name}Limit": str(shortage.limit),
            f"{name}Holders": ",".join(f"{holder.name}={holder.amount}" for holder in shortage.holders),
        }
    return metadata


TABLE: Final[Mapping[type[Exception], _Row]] = MappingProxyType(
    {
        errors.RequestInvalid: (StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", _nothing),
        errors.InstanceNotFound: (
            StatusCode.NOT_FOUND,
            "INSTANCE_NOT_FOUND",
            lambda e: {"instance": e.name},
        ),
        errors.InstanceAlreadyExists: (
            StatusCode.ALREADY_EXISTS,
            "INSTANCE_ALREADY_EXISTS",
            lambda e: {"instance": e.name},
        ),
        errors.InstanceStateConflict: (
            StatusCode.FAILED_PRECONDITION,
            "INSTANCE_STATE_CONFLICT",
            lambda e: {"instance": e.name, "state": e.state, "allowed": ",".join(e.allowed)},
        ),
        errors.InstanceProtected: (
            StatusCode.FAILED_PRECONDITION,
            "INSTANCE_PROTECTED",
            lambda e: {"instance": e.name},
        ),
        errors.InstanceExpired: (
            StatusCode.FAILED_PRECONDITION,
            "INSTANCE_EXPIRED",
            lambda e: {"instance": e.name},
        ),
        errors.InstanceWithoutLease: (
            StatusCode.FAILED_PRECONDITION,
            "INSTANCE_WITHOUT_LEASE",
            lambda e: {"instance": e.name},
        ),
        errors.LeaseLost: (StatusCode.FAILED_PRECONDITION, "LEASE_LOST", lambda e: {"instance": e.name}),
        errors.PreconditionFailed: (
            StatusCode.FAILED_PRECONDITION,
            "PRECONDITION_FAILED",
            lambda e: {"instance": e.name, "etag": e.etag},
        ),
        errors.PageTokenForeign: (StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID", _nothing),
        errors.ImageNotFound: (StatusCode.NOT_FOUND, "IMAGE_NOT_FOUND", lambda e: {"image": e.image}),
        errors.ImageDigestMismatch: (
            StatusCode.INVALID_ARGUMENT,
            "IMAGE_DIGEST_MISMATCH",
            lambda e: {"image": e.image, "expected": e.expected, "actual": e.actual},
        ),
        errors.NodeNotFound: (StatusCode.NOT_FOUND, "NODE_NOT_FOUND", lambda e: {"node": e.node}),
        errors.OrphanNotFound: (
            StatusCode.NOT_FOUND,
            "ORPHAN_NOT_FOUND",
            lambda e: {"node": e.node, "id": e.machine_id},
        ),
        errors.OrphanNotImportable: (
            StatusCode.FAILED_PRECONDITION,
            "ORPHAN_NOT_IMPORTABLE",
            lambda e: {"id": e.machine_id},
        ),
        errors.OrphanRunning: (
            StatusCode.FAILED_PRECONDITION,
            "ORPHAN_RUNNING",
            lambda e: {"id": e.machine_id},
        ),
        errors.MachineAlreadyManaged: (
            StatusCode.FAILED_PRECONDITION,
            "MACHINE_ALREADY_MANAGED",
            lambda e: {"id": e.machine_id, "instance": e.instance},
        ),
        errors.HostCapacityExhausted: (
            StatusCode.RESOURCE_EXHAUSTED,
            "HOST_CAPACITY_EXHAUSTED",
            _shortages,
        ),
        errors.AgentUnavailable: (
            StatusCode.FAILED_PRECONDITION,
            "GUEST_AGENT_UNAVAILABLE",
            lambda e: {"instance": e.name},
        ),
        errors.SecretUnreadable: (StatusCode.FAILED_PRECONDITION, "SECRET_UNREADABLE", _nothing),
        errors.WaitTimeout: (
            StatusCode.DEADLINE_EXCEEDED,
            "READINESS_TIMEOUT",
            lambda e: {
                "instance": e.name,
                "condition": e.condition,
                "reason": e.reason,
                "evidence": e.evidence,
                "console": e.console,
            },
        ),
        errors.PeerAway: (StatusCode.UNAVAILABLE, None, _nothing),
        errors.StaleFence: (StatusCode.ABORTED, None, _nothing),
        operation_errors.OperationInProgress: (StatusCode.ABORTED, "OPERATION_IN_PROGRESS", _operation),
        operation_errors.IdempotencyKeyReused: (
            StatusCode.INVALID_ARGUMENT,
            "IDEMPOTENCY_KEY_REUSED",
            _nothing,
        ),
        operation_errors.OperationNotFound: (
            StatusCode.NOT_FOUND,
            "OPERATION_NOT_FOUND",
            lambda e: {"operation": e.operation_id},
        ),
        operation_errors.NotCancellable: (
            StatusCode.FAILED_PRECONDITION,
            "OPERATION_NOT_CANCELLABLE",
            lambda e: {"operation": f"/v1/operations/{e.operation_id}", "state": e.state},
        ),
        operation_errors.PageTokenInvalid: (StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID", _nothing),
        operation_errors.CursorInvalid: (StatusCode.INVALID_ARGUMENT, "CURSOR_INVALID", _nothing),
        operation_errors.CursorExpired: (StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED", _nothing),
        operation_errors.ReaderTooSlow: (StatusCode.ABORTED, "READER_TOO_SLOW", _nothing),
        database_errors.DatabaseFull: (StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL", _nothing),
        database_errors.DatabaseConflict: (StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE", _nothing),
        database_errors.DatabaseUnavailable: (StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE", _nothing),
    }
)


def translate(error: Exception) -> RpcProblem | None:
    """Return what the caller is told of `error`, or None for what is no error of ours."""
    if isinstance(error, errors.PeerRefused):
        return _passed_on(error.refusal)
    row = TABLE.get(type(error))
    if row is None:
        return None
    code, reason, metadata_of = row
    violations: tuple[Violation, ...] = ()
    if isinstance(error, errors.RequestInvalid):
        violations = tuple(Violation(fault.pointer, fault.detail) for fault in error.faults)
    if reason is None:
        reason = error.reason if isinstance(error, errors.PeerError) else "INTERNAL"
    return RpcProblem(code, reason, str(error), metadata_of(error), violations)


def _passed_on(refusal: errors.Refusal) -> RpcProblem | None:
    code = StatusCode.__members__.get(refusal.code, StatusCode.INTERNAL)
    if code in {StatusCode.INTERNAL, StatusCode.UNKNOWN} and refusal.reason in {"INTERNAL", "UNKNOWN"}:
        # A defect of the peer is told in its log; to our caller it is one of the service.
        return None
    violations = tuple(Violation(fault.pointer, fault.detail) for fault in refusal.faults)
    return RpcProblem(code, refusal.reason, refusal.message, refusal.metadata, violations)
