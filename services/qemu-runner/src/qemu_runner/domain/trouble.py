"""Trouble of a guest, read from what it prints on its console. Pure; the guest is hostile.

Anybody who may write to the console can print these lines: they are the guest's word and no proof. So each
kind is told of once in a boot with a count that costs ever fewer notices, and its line is cut to a bound.

Source: the messages of Linux (kernel/panic.c, mm/oom_kill.c, arch/*/kernel/traps.c, arch/*/mm/fault.c), of
systemd (units/emergency.service.in, src/sulogin-shell), initramfs-tools (scripts/functions) and dracut
(modules.d/98dracut-systemd, 99base).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final


class TroubleKind(StrEnum):
    """What a console tells of, in the words of the contract, worst first."""

    KERNEL_PANIC = "KERNEL_PANIC"
    EMERGENCY_SHELL = "EMERGENCY_SHELL"
    KERNEL_OOPS = "KERNEL_OOPS"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"


@dataclass(frozen=True, slots=True)
class Trouble:
    """One kind of trouble in one boot.

    Attributes:
        kind: What it is.
        line: The first line that told of it, printable and cut.
        count: How often it was told of.
        time: When the first was seen (UTC).
        last_offset: Where in the console log the last line of it begins that is counted.
    """

    kind: TroubleKind
    line: str
    count: int
    time: datetime
    last_offset: int

    @property
    def told_count(self) -> int:
        """The count as it is told: exact up to 16, then rounded down to a power of two."""
        return self.count if self.count <= _EXACT else 1 << (self.count.bit_length() - 1)


@dataclass(frozen=True, slots=True)
class Sighting:
    """A line that tells of trouble; `offset` is where it begins in the console log."""

    kind: TroubleKind
    line: str
    offset: int


_EXACT: Final = 16
_MAX_LINE_BYTES: Final = 4096
_MAX_SHOWN: Final = 200
# An oops prints several lines that each would do: what follows so closely is of the same one.
_OOPS_BYTES: Final = 4096

# In front of a kernel's line: its uptime, and the thread or CPU if printk tells it (CONFIG_PRINTK_CALLER).
# It may stand behind a prompt, which has no line's end.
_KERNEL: Final = rb"(?:^(?:<\d>)?|\[ *\d{1,8}\.\d{1,9}\](?:\[ *[TC]\d{1,8}\])? )"
# In front of what systemd says of a job, and the name of the unit.
_UNIT: Final = (
    rb"(?:\[ {0,2}(?:OK|FAILED|DEPEND) {0,2}\] | {0,12})(?:Started|Reached target|Starting) "
    rb"(?:[\w.-]{1,60} - )?"
)
_PROMPT: Final = re.compile(rb"^(?:\(initramfs\) |(?:dracut|switch_root)(?:-\w{1,20})?:/# )")
_PATTERNS: Final = (
    (TroubleKind.KERNEL_PANIC, re.compile(_KERNEL + rb"Kernel panic - not syncing: ")),
    (
        TroubleKind.OUT_OF_MEMORY,
        re.compile(_KERNEL + rb"(?:Memory cgroup out|Out) of memory(?: \(\w{1,40}\))?: Kill"),
    ),
    (
        TroubleKind.KERNEL_OOPS,
        re.compile(
            # Lockups are left out: a busy host causes them.
            _KERNEL
            + rb"(?:BUG: (?!workqueue lockup)|kernel BUG at |Oops(?: - [\w ]{1,40})?: |Internal error: "
            rb"|Unable to handle kernel |(?:general protection fault|divide error|invalid opcode"
            rb"|stack segment|double fault|int3)\b.{0,200}?\[#\d{1,6}\])"
        ),
    ),
    (
        TroubleKind.EMERGENCY_SHELL,
        re.compile(
            rb"^(?:You are in (?:emergency|rescue) mode\b|Welcome to (?:emergency|rescue) mode!"
            rb"|Cannot open access to console, the root account is locked\."
            rb"|(?:Press Enter for|Give root password for(?: system)?) maintenance\b"
            rb"|ALERT! .{1,200}(?:does not exist|[Dd]ropping to a shell)"
            rb"|Entering emergency mode\. Exit the shell to continue\."
            rb"|" + _UNIT + rb"(?:Dracut )?(?:Emergency|Rescue) (?:Mode|Shell)\b)"
        ),
    ),
    (TroubleKind.EMERGENCY_SHELL, _PROMPT),
)
# One search of a whole chunk before anything is cut into lines: most of what guests print is none of it.
_SUSPECT: Final = re.compile(
    rb"Kernel panic - |ut of memory|BUG|Oops|Internal error: |Unable to handle kernel |\[#"
    rb"|emergency|rescue|Emergency|Rescue|maintenance|ALERT!|\(initramfs\)|root account is locked|:/# "
)
_ESCAPES: Final = re.compile(rb"\x1b(?:\[[0-9;?]{0,32}[A-Za-z]|[()][0-9A-Za-z]|[=>78cM])")


class TroubleParser:
    """Finds lines that tell of trouble in a console's bytes; constant memory.

    Args:
        offset: Of the first byte in the log.
    """

    def __init__(self, offset: int) -> None:
        # Of a line that has not ended: its first bytes, where it begins, whether the rest is passed over.
        self._line = b""
        self._begin = offset
        self._cut = False
        self._prompt_at = -1
        self._oops_until = -1

    def feed(self, chunk: bytes) -> list[Sighting]:
        """Take the next bytes; return what they tell."""
        if self._cut:
            rest = chunk.partition(b"\n")
            self._begin += len(rest[0]) + len(rest[1])
            if not rest[1]:
                return []
            self._cut, chunk = False, rest[2]
        text, begin = self._line + chunk, self._begin
        line = text.rpartition(b"\n")[2]
        if len(line) > _MAX_LINE_BYTES:
            # What matters stands at a line's beginning: it counts as ended here.
            text = text[: len(text) - len(line) + _MAX_LINE_BYTES] + b"\n"
            self._begin, self._line, self._cut = (
                begin + len(text) - 1 + len(line) - _MAX_LINE_BYTES,
                b"",
                True,
            )
        else:
            self._begin, self._line = begin + len(text) - len(line), line
        return list(self._sightings(text, begin))

    def _sightings(self, text: bytes, begin: int) -> Iterator[Sighting]:
        unended_at = text.rfind(b"\n") + 1
        for at, line in _suspects(text[:unended_at]):
            offset = begin + at
            told = _told_by(_plain(line))
            if told is None or offset == self._prompt_at:
                continue
            kind, words = told
            if kind is TroubleKind.KERNEL_OOPS:
                followed, self._oops_until = offset <= self._oops_until, offset + _OOPS_BYTES
                if followed:
                    continue
            yield Sighting(kind, _shown(words), offset)
        # Nobody ends the line of a prompt.
        unended, offset = text[unended_at:], begin + unended_at
        if (
            offset != self._prompt_at
            and _SUSPECT.search(unended)
            and _PROMPT.search(plain := _plain(unended))
        ):
            self._prompt_at = offset
            yield Sighting(TroubleKind.EMERGENCY_SHELL, _shown(plain), offset)


def _suspects(text: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that hold a suspicious word, and where they begin; the others cost one search."""
    at = 0
    while (hit := _SUSPECT.search(text, at)) and (end := text.find(b"\n", hit.start())) >= 0:
        begin = text.rfind(b"\n", 0, hit.start()) + 1
        yield begin, text[begin:end]
        at = end + 1


def counted(
    known: tuple[Trouble, ...], sightings: Iterable[Sighting], moment: datetime
) -> tuple[Trouble, ...]:
    """Return `known` with the sightings that it has not counted yet, worst kind first."""
    by_kind = {trouble.kind: trouble for trouble in known}
    for seen in sightings:
        trouble = by_kind.get(seen.kind)
        if trouble is None:
            by_kind[seen.kind] = Trouble(seen.kind, seen.line, 1, moment, seen.offset)
        elif seen.offset > trouble.last_offset:
            # Read again after a restart, what is counted already is not counted twice.
            by_kind[seen.kind] = replace(trouble, count=trouble.count + 1, last_offset=seen.offset)
    return tuple(by_kind[kind] for kind in TroubleKind if kind in by_kind)


def is_news(before: tuple[Trouble, ...], after: tuple[Trouble, ...]) -> bool:
    """Tell whether `after` is to be told of: a guest that repeats itself costs ever fewer notices."""
    return _told(before) != _told(after)


def _told(troubles: tuple[Trouble, ...]) -> list[tuple[TroubleKind, int]]:
    return [(trouble.kind, trouble.told_count) for trouble in troubles]


def _told_by(line: bytes) -> tuple[TroubleKind, bytes] | None:
    """Return what a line tells of, and its words without what stands in front of them (a prompt)."""
    for kind, pattern in _PATTERNS:
        if found := pattern.search(line):
            return kind, line[found.start() :]
    return None


def _plain(line: bytes) -> bytes:
    """Return the line without colours, and without what a carriage return has overwritten."""
    return _ESCAPES.sub(b"", line[:_MAX_LINE_BYTES]).strip(b"\r").rpartition(b"\r")[2]


def _shown(line: bytes) -> str:
    text = line.decode("utf-8", "replace")
    return "".join(character for character in text if character.isprintable())[:_MAX_SHOWN].strip()
