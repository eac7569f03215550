"""The operations engine: durable operations made of steps, fences, undo, idempotency and an event feed.

It owns the operations, subjects, idempotency, events and meta tables. It must never know what the subjects
are: plans and hooks are handed in.
"""

from controller.operations.clock import (
    Clock,
    DatabaseClock,
    OperationIds,
    SystemClock,
    uuid7_operation_ids,
    wall_clock_of,
)
from controller.operations.cursor import Cursor, Position
from controller.operations.engine import Engine, EngineSettings
from controller.operations.epoch import cluster_id, new_epoch
from controller.operations.errors import (
    CursorError,
    CursorExpired,
    CursorInvalid,
    EngineStopped,
    IdempotencyKeyReused,
    LostLease,
    NotCancellable,
    NotYet,
    OperationInProgress,
    OperationNotFound,
    OperationsError,
    PageTokenInvalid,
    PeerUnavailable,
    Permanent,
    Problem,
    ReaderTooSlow,
    Retryable,
    ShutOut,
    StepError,
    SubmitRefused,
    UnknownKind,
)
from controller.operations.failpoints import FailPoints
from controller.operations.feed import Event, Feed, Gap, Tail, everything
from controller.operations.files import kept as kept_files
from controller.operations.lease import LeaseSettings
from controller.operations.listing import OperationFilter, OperationPage
from controller.operations.operation import (
    Initiator,
    LogLine,
    Operation,
    OperationId,
    Progress,
    Stage,
    UndoScope,
)
from controller.operations.outbox import Outbox
from controller.operations.plan import Look, Plan, ReversibleStep, Step, StepContext
from controller.operations.retention import Retention, RetentionSettings
from controller.operations.state import PublicState, StageState, State
from controller.operations.subjects import (
    active_operation,
    fences_of,
    forget_subject,
    next_fence,
    outbid,
    require_idle,
)
from controller.operations.submission import (
    Accepted,
    AlreadyThere,
    IdempotencyKey,
    Prepare,
    Submission,
    Supersede,
)

__all__ = [
    "Accepted",
    "AlreadyThere",
    "Clock",
    "Cursor",
    "CursorError",
    "CursorExpired",
    "CursorInvalid",
    "DatabaseClock",
    "Engine",
    "EngineSettings",
    "EngineStopped",
    "Event",
    "FailPoints",
    "Feed",
    "Gap",
    "IdempotencyKey",
    "IdempotencyKeyReused",
    "Initiator",
    "LeaseSettings",
    "LogLine",
    "Look",
    "LostLease",
    "NotCancellable",
    "NotYet",
    "Operation",
    "OperationFilter",
    "OperationId",
    "OperationIds",
    "OperationInProgress",
    "OperationNotFound",
    "OperationPage",
    "OperationsError",
    "Outbox",
    "PageTokenInvalid",
    "PeerUnavailable",
    "Permanent",
    "Plan",
    "Position",
    "Prepare",
    "Problem",
    "Progress",
    "PublicState",
    "ReaderTooSlow",
    "Retention",
    "RetentionSettings",
    "Retryable",
    "ReversibleStep",
    "ShutOut",
    "Stage",
    "StageState",
    "State",
    "Step",
    "StepContext",
    "StepError",
    "Submission",
    "SubmitRefused",
    "Supersede",
    "SystemClock",
    "Tail",
    "UndoScope",
    "UnknownKind",
    "active_operation",
    "cluster_id",
    "everything",
    "fences_of",
    "forget_subject",
    "kept_files",
    "new_epoch",
    "next_fence",
    "outbid",
    "require_idle",
    "uuid7_operation_ids",
    "wall_clock_of",
]
