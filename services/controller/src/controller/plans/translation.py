"""What a peer's error means for the step that met it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from controller.errors import (
    ControllerError,
    ImageDigestMismatch,
    ImageNotFound,
    NodeNotFound,
    PeerAway,
    PeerRefused,
    SecretUnreadable,
    StaleFence,
)
from controller.operations import NotYet, PeerUnavailable, Permanent, Problem, Retryable, ShutOut

# Somebody behind the peer is away, or the machine is busy: it passes.
_AWAY: Final = frozenset({"VM_HOST_UNAVAILABLE", "IMAGE_STORE_UNAVAILABLE", "RUNNER_UNAVAILABLE"})
_BUSY: Final = frozenset({"MACHINE_BUSY", "ACTION_IN_PROGRESS"})
_PERMANENT_CODES: Final = frozenset(
    {
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "FAILED_PRECONDITION",
        "RESOURCE_EXHAUSTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "PERMISSION_DENIED",
    }
)


@contextmanager
def step_errors() -> Iterator[None]:
    """Raise the engine's error classes instead of the controller's own.

    Raises:
        ShutOut: A later operation, or another controller, has the machine.
        PeerUnavailable: The peer, or one behind it, is away.
        NotYet: The machine is busy.
        Permanent: Refused for good.
        Retryable: Refused without a reason that says more.
    """
    try:
        yield
    except StaleFence as exc:
        raise ShutOut(str(exc)) from exc
    except PeerAway as exc:
        raise PeerUnavailable(Problem(exc.reason, exc.message)) from exc
    except PeerRefused as exc:
        raise _refused(exc) from exc
    except ImageNotFound as exc:
        raise Permanent(Problem("IMAGE_NOT_FOUND", str(exc), {"image": exc.image})) from exc
    except ImageDigestMismatch as exc:
        metadata = {"image": exc.image, "expected": exc.expected, "actual": exc.actual}
        raise Permanent(Problem("IMAGE_DIGEST_MISMATCH", str(exc), metadata)) from exc
    except NodeNotFound as exc:
        raise PeerUnavailable(Problem("RUNNER_UNAVAILABLE", str(exc))) from exc
    except SecretUnreadable as exc:
        raise Permanent(Problem("SECRET_UNREADABLE", str(exc))) from exc
    except ControllerError as exc:
        raise Retryable(Problem("INTERNAL", "Internal error.")) from exc


def _refused(error: PeerRefused) -> Permanent | Retryable | NotYet | PeerUnavailable:
    refusal = error.refusal
    problem = Problem(refusal.reason, refusal.message, dict(refusal.metadata))
    if refusal.reason in _AWAY:
        return PeerUnavailable(problem)
    if refusal.reason in _BUSY or refusal.code == "ABORTED":
        return NotYet(problem)
    if refusal.code in _PERMANENT_CODES or refusal.reason in {"QEMU_UNAVAILABLE", "QEMU_START_FAILED"}:
        return Permanent(problem)
    return Retryable(problem)
