"""What was said on a machine's monitor: the last of it, in memory, for whoever asks why something failed."""

import json
from collections import deque
from datetime import UTC, datetime
from typing import Any, Final

_ENTRIES: Final = 300
_ENTRY_CHARACTERS: Final = 1000


class Transcript:
    """The last commands, answers and events of one machine, over all its runs in one life of the runner."""

    def __init__(self) -> None:
        self._entries: deque[str] = deque(maxlen=_ENTRIES)

    def note(self, kind: str, message: Any) -> None:
        """Keep one message: a "command", "return", "error" or "event"."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        text = json.dumps(message, default=str)
        # What is cut is not JSON any more; as a string it is.
        told = message if len(text) <= _ENTRY_CHARACTERS else f"{text[:_ENTRY_CHARACTERS]}…"
        self._entries.append(json.dumps({"time": time, kind: told}, default=str))

    def lines(self) -> list[str]:
        """Return what is kept, one JSON object a line."""
        return list(self._entries)
