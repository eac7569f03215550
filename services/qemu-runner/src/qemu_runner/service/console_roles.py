"""Who writes to one machine's console: nobody, or one viewer.

It keeps the role until it gives it back, goes, or somebody takes it by force.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final


@dataclass(frozen=True, slots=True)
class Holder:
    """The viewer that writes: its number, its label, and since when."""

    number: int
    label: str
    since: datetime


class WriterRole:
    """The role.

    Args:
        changed: Called with the viewer's number that lost it by force, or None, when another has it.
    """

    def __init__(self, changed: Callable[[int | None], None]) -> None:
        self._changed: Final = changed
        self.holder: Holder | None = None

    def claim(self, number: int, label: str, *, force: bool) -> bool:
        """Take the role; tell whether the viewer has it now."""
        before = self.holder
        if before is not None and before.number == number:
            return True
        if before is not None and not force:
            return False
        self.holder = Holder(number, label, datetime.now(UTC))
        self._changed(None if before is None else before.number)
        return True

    def release(self, number: int) -> None:
        """Give the role back, if the viewer has it."""
        if self.holder is not None and self.holder.number == number:
            self.holder = None
            self._changed(None)
