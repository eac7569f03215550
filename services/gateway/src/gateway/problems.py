"""Problems (RFC 9457) as HTTP answers: the only way in which the gateway says no."""

import json
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry import trace
from starlette.responses import Response

from gateway.errors import GatewayError, RemoteError
from gateway.reasons import REASONS, Reason, reason_of

MEDIA_TYPE: Final = "application/problem+json"


def problem_members(
    reason: str, known: Reason, detail: str, metadata: Mapping[str, str], *, instance: str, trace_id: str
) -> dict[str, Any]:
    """Return the members that every problem has."""
    return {
        "type": f"/errors#{reason}",
        "title": known.title,
        "status": known.status,
        "detail": detail,
        "instance": instance,
        "reason": reason,
        "metadata": dict(metadata),
        "traceId": trace_id,
    }


def current_trace_id() -> str:
    """Return the trace id of the current span, or ""."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""


def problem_response(
    error: GatewayError, path: str, *, extensions: Mapping[str, Any] | None = None
) -> Response:
    """Return `error` as the answer to a request of `path`."""
    code_name = error.code_name if isinstance(error, RemoteError) else ""
    known = reason_of(error.reason, code_name)
    reason, detail, metadata = error.reason, error.detail, error.metadata
    if known is None:
        known = REASONS["INTERNAL"]
        if code_name:  # a service's bug: what it says is for the log
            reason, detail, metadata = "INTERNAL", "Internal error.", {}
    document = problem_members(
        reason, known, detail, metadata, instance=error.instance or path, trace_id=current_trace_id()
    )
    if error.faults:
        document["errors"] = [{"pointer": fault.pointer, "detail": fault.detail} for fault in error.faults]
    document |= extensions or {}
    headers = dict(error.headers)
    if known.retry_after_s:
        headers["Retry-After"] = str(known.retry_after_s)
    return Response(
        json.dumps(document, ensure_ascii=False, separators=(",", ":")),
        status_code=known.status,
        headers=headers,
        media_type=MEDIA_TYPE,
    )
