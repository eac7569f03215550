"""The table of reasons is complete and is what the documentation says."""

import re
from pathlib import Path

import grpc
import pytest
from gateway import errors
from gateway.problems import problem_response
from gateway.reason_pages import as_markdown
from gateway.reasons import BY_CODE, REASONS

# The reasons that the REST contract names.
CONTRACT = re.findall(
    r"\w+",
    """
    INSTANCE_NOT_FOUND IMAGE_NOT_FOUND INSTANCE_ALREADY_EXISTS INSTANCE_STATE_CONFLICT IMAGE_IN_USE
    OPERATION_IN_PROGRESS FIELD_INVALID IMAGE_DIGEST_MISMATCH IMAGE_UNSAFE IMAGE_FORMAT_UNKNOWN
    HOST_CAPACITY_EXHAUSTED DISK_FULL RUNNER_UNAVAILABLE VM_HOST_UNAVAILABLE QEMU_UNAVAILABLE
    IMAGE_STORE_UNAVAILABLE CONTROLLER_UNAVAILABLE READINESS_TIMEOUT PATH_NOT_FOUND METHOD_NOT_ALLOWED
    NOT_ACCEPTABLE MEDIA_TYPE_UNSUPPORTED BODY_TOO_LARGE RANGE_NOT_SATISFIABLE OPERATION_NOT_FOUND
    NODE_NOT_FOUND OPERATION_NOT_CANCELLABLE PRECONDITION_FAILED IDEMPOTENCY_KEY_REUSED CURSOR_INVALID
    CURSOR_EXPIRED HOST_NOT_ALLOWED ORIGIN_NOT_ALLOWED GUEST_PROGRAM_NOT_FOUND GUEST_AGENT_UNAVAILABLE
    SUPERSEDED VM_HOST_EXITED HOST_RESTARTED HOST_SHUTDOWN INTERNAL
    """,
)
SERVICES = Path(__file__).parents[2]
# How the other services' tables and steps give a reason.
_GIVEN = re.compile(r'(?:StatusCode\.\w+,|Problem\()\s*"([A-Z_]+)"')
GIVEN = {
    reason
    for service in ("controller", "image-store", "qemu-runner")
    for file in (SERVICES / service / "src").rglob("*.py")
    for reason in _GIVEN.findall(file.read_text(encoding="utf-8"))
}
OWN = re.findall(r'"([A-Z]{3,}(?:_[A-Z]+)+)"', Path(errors.__file__).read_text(encoding="utf-8"))


@pytest.mark.parametrize("reason", sorted({*CONTRACT, *OWN, *GIVEN}))
def test_every_reason_has_a_status(reason: str) -> None:
    assert reason in REASONS


def test_the_services_give_reasons() -> None:
    assert {"INSTANCE_NOT_FOUND", "IMAGE_UNSAFE", "QEMU_START_FAILED", "STEP_NOT_DONE"} <= GIVEN


def test_nothing_is_documented_that_nobody_gives() -> None:
    sources = [
        file.read_text(encoding="utf-8")
        for file in SERVICES.glob("*/src/**/*.py")
        if file.name != "reasons.py"
    ]
    unused = {name for name in REASONS if not any(f'"{name}"' in text for text in sources)}
    # What stands for a gRPC code alone, and what is made of the name of a state.
    assert unused - {code.name for code in grpc.StatusCode} == {"OPERATION_FAILED"}


@pytest.mark.parametrize("code", [code.name for code in grpc.StatusCode])
def test_every_grpc_code_is_an_http_status_or_an_internal_error(code: str) -> None:
    assert code in BY_CODE or code in {"OK", "UNKNOWN", "INTERNAL", "DATA_LOSS"}


@pytest.mark.parametrize("name", [name for name, reason in REASONS.items() if reason.status == 503])
def test_every_503_says_when_to_come_back(name: str) -> None:
    assert REASONS[name].retry_after_s > 0


def test_what_nobody_knows_tells_nothing() -> None:
    error = errors.RemoteError("UNKNOWN", "BOOM", "secret", {"a": "secret"}, [])
    response = problem_response(error, "/x")
    assert response.status_code == 500
    assert b"secret" not in bytes(response.body)


def test_the_documentation_is_generated_from_the_table() -> None:
    page = Path(__file__).parents[3] / "docs" / "errors.md"
    assert page.read_text(encoding="utf-8") == as_markdown()
