"""What was really done to the host, in order: the witness against anything that acts twice."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Effect(StrEnum):
    """A change of the host that a second one of its kind would not undo."""

    MAKE = "make"
    PREPARE = "prepare"
    SPAWN = "spawn"
    PAUSE = "pause"
    CONTINUE = "continue"
    RESET = "reset"
    END = "end"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Entry:
    """One effect.

    Attributes:
        request_id: Who asked: "<operation>/<step>"; empty where nobody did (a guest or the host ended it).
        incarnation: Of the process concerned; 0 where there is none.
        reason: Of an end.
    """

    machine_id: str
    effect: Effect
    fence: int
    request_id: str
    incarnation: int = 0
    reason: str = ""

    @property
    def operation_id(self) -> str:
        """The operation that asked."""
        return self.request_id.partition("/")[0]


class Journal:
    """Effects in the order in which they took place."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def add(self, entry: Entry) -> None:
        """Append one."""
        self._entries.append(entry)

    def since(self, position: int) -> list[Entry]:
        """Return what was added after the journal had `position` entries."""
        return self._entries[position:]

    def of(self, machine_id: str) -> list[Entry]:
        """Return the effects on one machine."""
        return [entry for entry in self._entries if entry.machine_id == machine_id]
