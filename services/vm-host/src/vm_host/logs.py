"""JSON log lines on stderr, in the form of the other services' lines."""

import json
import logging
import os
import select
import sys
from datetime import UTC, datetime
from typing import Final

_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Writes one JSON object a line; what a call passes in ``extra`` becomes fields of it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return ``record`` as one line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": "vm-host",
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class NeverBlockingHandler(logging.Handler):
    """Writes lines to a descriptor, and drops those that nobody takes: a full pipe must not stop vm-host.

    The next line that is taken tells in ``dropped`` how many are missing.
    """

    def __init__(self, descriptor: int) -> None:
        """Write to ``descriptor``, which stays the caller's."""
        super().__init__()
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write ``record`` if that is possible at once."""
        try:
            if not any(events & select.POLLOUT for _, events in self._poll.poll(0)):
                self._dropped += 1
                return
            if self._dropped:
                record.dropped = self._dropped
            line = self.format(record).encode("utf-8", "backslashreplace")
            # A writable pipe takes PIPE_BUF bytes without blocking (pipe(7)), and no more is promised.
            os.write(self._descriptor, line[: select.PIPE_BUF - 1] + b"\n")
            self._dropped = 0
        except OSError:
            self._dropped += 1


def configure_logs(level: str) -> None:
    """Send every logger's lines of ``level`` and above to stderr as JSON."""
    handler = NeverBlockingHandler(sys.stderr.fileno())
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
