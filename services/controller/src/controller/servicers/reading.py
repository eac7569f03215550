"""Texts of requests as values; what cannot be read becomes faults, all of them."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, TypeVar

from servicekit.quantities import QuantityError, parse_duration_s

from controller.domain.fault import Fault

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

# RFC 3339, section 5.6.
_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


@dataclass(slots=True)
class Reading:
    """Collects what cannot be read."""

    faults: list[Fault] = field(default_factory=list)

    def quantity(self, pointer: str, text: str, parse: Callable[[str], T], default: T) -> T | None:
        """Return the parsed `text`, `default` for an empty one, None and a fault for an unreadable one."""
        if not text:
            return default
        try:
            return parse(text)
        except QuantityError as exc:
            self.faults.append(Fault(pointer, str(exc)))
            return None

    def duration_s(self, pointer: str, text: str, default_s: float, most_s: float) -> float:
        """Return a duration; beyond `most_s` is a fault."""
        found = self.quantity(pointer, text, parse_duration_s, default_s)
        if found is not None and found > most_s:
            self.faults.append(Fault(pointer, f"must be at most {int(most_s)}s"))
        return default_s if found is None else found

    def choice(self, pointer: str, text: str, kind: type[E], default: E) -> E | None:
        """Return one of the words of `kind`, `default` for an empty text; another one is a fault."""
        if text and text not in set(kind):
            self.faults.append(Fault(pointer, f"must be one of {', '.join(kind)}"))
            return None
        return kind(text) if text else default

    def time(self, pointer: str, text: str) -> datetime | None:
        """Return the moment of an RFC 3339 text, None for an empty one; another one is a fault."""
        if not text:
            return None
        try:
            if _TIME.fullmatch(text):
                return datetime.fromisoformat(text.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            # Of the form, but there is no such day or hour.
            pass
        self.faults.append(Fault(pointer, "must be a time such as 2026-01-01T00:00:00Z (RFC 3339)"))
        return None
