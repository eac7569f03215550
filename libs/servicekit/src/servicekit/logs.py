"""JSON log lines on stderr, each with the trace it belongs to."""

import json
import logging
import sys
from collections import deque
from datetime import UTC, datetime
from typing import Final

from opentelemetry import trace

_KEPT_LINES: Final = 4000
_LINE_CHARACTERS: Final = 4000
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Writes one JSON object a line; what a call passes in `extra` becomes fields of it."""

    def __init__(self, service: str) -> None:
        """Name the `service` that every line tells."""
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return `record` as one line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "event": record.getMessage(),
        }
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line["traceId"] = trace.format_trace_id(span.trace_id)
            line["spanId"] = trace.format_span_id(span.span_id)
        line |= {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class RecentLines(logging.Handler):
    """Keeps the last lines that belong to a trace, in memory."""

    def __init__(self, service: str) -> None:
        """Name the `service` that every line tells."""
        super().__init__()
        self.setFormatter(JsonFormatter(service))
        self._lines: deque[tuple[int, str]] = deque(maxlen=_KEPT_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line if it was written within a span."""
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            self._lines.append((span.trace_id, self.format(record)[:_LINE_CHARACTERS]))

    def of(self, trace_id: str) -> list[str]:
        """Return the lines of one trace, oldest first."""
        wanted = int(trace_id, 16) if trace_id else 0
        return [line for found, line in tuple(self._lines) if found == wanted]


def recent_lines(trace_id: str) -> list[str]:
    """Return what this process has written lately within a trace (32 hex digits), oldest first."""
    handlers = logging.getLogger().handlers
    return [line for handler in handlers if isinstance(handler, RecentLines) for line in handler.of(trace_id)]


def configure_logs(service: str, level: str) -> None:
    """Send every logger's lines of `level` ("" means INFO) and above to stderr as JSON, and keep the last."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=level or "INFO", handlers=[handler, RecentLines(service)], force=True)
    logging.getLogger("opentelemetry.context").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Say no to the complaint of a tracing interceptor whose stream was given up by its reader.

    The interceptor is a generator then that is closed from outside of the context it was entered in; nothing
    is wrong with that, and clients that hang up would fill the log with it.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, ValueError) and "different Context" in str(error))
