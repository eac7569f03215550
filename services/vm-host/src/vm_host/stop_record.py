"""The note that vm-host leaves beside its socket when it stops in good order.

Exits are kept until acknowledged, also past the end of this process: they are written to
``<socket>.stopped``, the next vm-host at this socket reports them as its own, and removes the file when
the last of them is acknowledged. A vm-host that is killed leaves none: its children died with it.
"""

import contextlib
import json
import logging
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from vm_host.children import Child, Children, Exit, Reason
from vm_host.errors import RefusedError
from vm_host.requests import parse_handle

_log = logging.getLogger(__name__)


class StopRecord:
    """The file, and which of its exits are still waiting for their acknowledgement."""

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path.with_name(socket_path.name + ".stopped")

    def write(self, identity: dict[str, Any], children: Children) -> None:
        """Write start id, boot id and all unacknowledged exits; the last act before the socket closes."""
        document = {**identity, "children": [child.describe() for child in children.unacknowledged()]}
        draft = self._path.with_name(self._path.name + ".new")
        try:
            # 0640: the runner reads it through the group of the socket's directory.
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(document, file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except OSError as exc:
            # Stopping matters more; a runner that watched has seen the exits.
            _log.error("stop record not written", extra={"path": str(self._path), "error": str(exc)})

    def restore(self, children: Children) -> None:
        """Take the exits of the earlier vm-host into the table."""
        try:
            document = json.loads(self._path.read_bytes())
            for described in document["children"]:
                children.restore(_child(described))
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RefusedError) as exc:
            _log.error("stop record not readable", extra={"path": str(self._path), "error": repr(exc)})
        self.settle(children)

    def settle(self, children: Children) -> None:
        """Remove the file once none of its exits waits any more (every older one is acknowledged)."""
        if not children.unacknowledged():
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()


def _child(described: dict[str, Any]) -> Child:
    ended = described["exit"]
    return Child(
        handle=parse_handle(described["handle"]),
        pid=int(described["pid"]),
        started_at=datetime.fromisoformat(described["startTime"]),
        exit=Exit(
            code=ended["code"],
            signal=ended["signal"],
            reason=Reason(ended["reason"]),
            ended_at=datetime.fromisoformat(ended["endTime"]),
        ),
    )
