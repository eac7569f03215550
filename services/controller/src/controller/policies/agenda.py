"""Who is due when, by one clock: a heap whose entries are replaced without being searched for."""

import heapq
import itertools
from dataclasses import dataclass
from typing import Final, NamedTuple

_SLACK: Final = 64


class Key(NamedTuple):
    """One matter of one subject."""

    subject: str
    matter: str


@dataclass(frozen=True, slots=True)
class _Entry:
    number: int
    stamp: object
    at: float


class Agenda:
    """Entries by key; one that is due stays `reached` until it is dropped or put anew."""

    def __init__(self) -> None:
        self._entries: dict[Key, _Entry] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """How many items are held, those included that do not stand any more."""
        return len(self._heap)

    def put(self, key: Key, stamp: object, at: float) -> None:
        """Have `key` be due at `at`, unless it is there under the same stamp already."""
        known = self._entries.get(key)
        if known is not None and stamp is not None and known.stamp == stamp:
            return
        entry = _Entry(next(self._numbers), stamp, at)
        self._entries[key] = entry
        heapq.heappush(self._heap, (at, entry.number, key))
        if len(self._heap) > 2 * len(self._entries) + _SLACK:
            self._heap = [(e.at, e.number, k) for k, e in self._entries.items()]
            heapq.heapify(self._heap)

    def drop(self, key: Key) -> None:
        """Forget `key`."""
        self._entries.pop(key, None)

    def reached(self, key: Key, now: float, stamp: object) -> bool:
        """Whether `key` is due under that stamp."""
        entry = self._entries.get(key)
        return entry is not None and entry.stamp == stamp and entry.at <= now

    def pop_due(self, now: float) -> set[str]:
        """Return the subjects that have become due, each once."""
        found = set()
        while (first := self.first()) is not None and first <= now:
            found.add(heapq.heappop(self._heap)[2].subject)
        return found

    def first(self) -> float | None:
        """Return when the next one is due; those that `pop_due` has told are over."""
        while self._heap and not self._stands(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _stands(self, item: tuple[float, int, Key]) -> bool:
        entry = self._entries.get(item[2])
        return entry is not None and entry.number == item[1]
