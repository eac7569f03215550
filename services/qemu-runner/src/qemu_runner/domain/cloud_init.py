"""What cloud-init tells of itself, read from its own files. Pure; the guest is hostile: all is bounded.

Sources: cloud-init's `status.json` and `result.json` (docs: "Data and logs", "Status"), which its
`status --format json` reads too; `recoverable_errors` are there since 23.4, before that warnings are in its
log.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from qemu_runner.domain.room import Room, size_of

RUNNING: Final = "running"
DONE: Final = "done"
ERROR: Final = "error"

_STAGES: Final = ("init-local", "init", "modules-init", "modules-config", "modules-final")
_MAX_ITEMS: Final = 16
_MAX_TEXT: Final = 300
_MAX_NAME: Final = 100
_REPORT_BYTES: Final = 16 * 1024
# Names and times of all stages, the state.
_BESIDE_TEXTS_BYTES: Final = 512
_SCHEMA_BYTES: Final = 64 * 1024
# 2100-01-01: what a guest's clock says later is no time.
_MAX_EPOCH_S: Final = 4_102_444_800.0
# An error of a module is told as the repr of (name, exception).
_MODULE: Final = re.compile(r"^\('([A-Za-z0-9_-]{1,64})', ")
_LOG_TIME: Final = re.compile(r"^[0-9-]{10} [0-9:,]{8,12} - ")
_SCHEMA: Final = re.compile(r"cloud.?config.{0,40}schema|invalid cloud-config|schema", re.IGNORECASE)
_SCHEMA_ERRORS: Final = re.compile(r"Cloud config schema errors: (.*)", re.DOTALL)
_UNEXPECTED: Final = re.compile(
    r"Additional properties are not allowed \("
    r"((?:'[\w.-]{1,64}'(?:, )?){1,16}) (?:was|were) unexpected\)"
)
_QUOTE: Final = re.compile(r"['\"]")
# The rest of a quoted value: possessive, so that one without an end is gone through once.
_REST: Final = {
    "'": re.compile(r"(?:[^'\\]++|\\.)*+'", re.DOTALL),
    '"': re.compile(r'(?:[^"\\]++|\\.)*+"', re.DOTALL),
}
_FAULT: Final = re.compile(r"(?:^|, )([A-Za-z_][\w.-]{0,99}): (?:unexpected <([^>]{1,1000})>)?")


@dataclass(frozen=True, slots=True)
class CloudInitStage:
    """One stage; its times are of the guest's clock."""

    name: str
    start_time: datetime | None = None
    finish_time: datetime | None = None
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CloudInitReport:
    """What cloud-init tells of this boot.

    Attributes:
        state: `running`, `done` or `error`.
        failed_modules: Those whose errors name them.
        warnings: What it went on in spite of.
        schema_errors: Where the user-data is not as its schema wants it, without values: they may be secret.
    """

    state: str
    datasource: str = ""
    stages: tuple[CloudInitStage, ...] = ()
    errors: tuple[str, ...] = ()
    failed_modules: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    schema_errors: tuple[str, ...] = ()
    tells_warnings: bool = False
    """Whether this version's files tell warnings: else its log does."""

    @property
    def doubts_schema(self) -> bool:
        """Whether a warning says that the user-data is not as the schema wants it."""
        return any(_SCHEMA.search(warning) for warning in self.warnings)

    def bounded(self) -> "CloudInitReport":
        """Return as much of it as has room in 16 KiB.

        What stages repeat goes first, then what stages tell alone, then warnings, then the rest.
        """
        told = (self.datasource, *self.failed_modules, *self.errors, *self.schema_errors, *self.warnings)
        of_stages = (text for stage in self.stages for text in (*stage.errors, *stage.warnings))
        if sum(map(size_of, (*told, *of_stages))) <= _REPORT_BYTES - _BESIDE_TEXTS_BYTES:
            return self
        room = Room(_REPORT_BYTES - _BESIDE_TEXTS_BYTES)
        kept = replace(
            self,
            datasource=self.datasource if room.takes(self.datasource) else "",
            failed_modules=room.fitting(self.failed_modules),
            errors=room.fitting(self.errors),
            schema_errors=room.fitting(self.schema_errors),
            warnings=room.fitting(self.warnings),
        )
        stages = tuple(
            replace(
                stage,
                errors=room.fitting(text for text in stage.errors if text not in kept.errors),
                warnings=room.fitting(text for text in stage.warnings if text not in kept.warnings),
            )
            for stage in self.stages
        )
        return replace(kept, stages=stages)


def report_of(status: bytes, result: bytes) -> CloudInitReport | None:
    """Return what the two files tell; None where neither makes sense."""
    seen, ended = _members(status), _members(result)
    if seen is None and ended is None:
        return None
    stages = tuple(_stage(name, seen[name]) for name in _STAGES if _is_stage(seen, name)) if seen else ()
    errors = [error for stage in stages for error in stage.errors]
    errors += [error for error in _texts((ended or {}).get("errors")) if error not in errors]
    warnings = tuple(dict.fromkeys(warning for stage in stages for warning in stage.warnings))
    state = RUNNING if ended is None else ERROR if errors else DONE
    names = (match[1] for error in errors if (match := _MODULE.match(error)))
    source = (ended or seen or {}).get("datasource")
    return CloudInitReport(
        state,
        printable(source, _MAX_NAME) if isinstance(source, str) else "",
        stages,
        tuple(errors[:_MAX_ITEMS]),
        tuple(dict.fromkeys(names))[:_MAX_ITEMS],
        warnings[:_MAX_ITEMS],
        tells_warnings=seen is not None and any("recoverable_errors" in seen[stage.name] for stage in stages),
    )


def warnings_in(log: bytes) -> tuple[str, ...]:
    """Return the warnings among lines of cloud-init's log, each once, without their times."""
    lines = (line for line in log.decode("utf-8", "replace").splitlines() if "[WARNING]: " in line)
    told = (printable(_LOG_TIME.sub("", line).replace("[WARNING]: ", ": ", 1)) for line in lines)
    return tuple(dict.fromkeys(told))[:_MAX_ITEMS]


def schema_errors_in(output: bytes) -> tuple[str, ...]:
    """Return what `cloud-init schema --system` finds wrong: places and names of keys, never a value."""
    text = output[:_SCHEMA_BYTES].decode("utf-8", "replace")
    found = _SCHEMA_ERRORS.search(text)
    if found is None:
        return ()
    told = _UNEXPECTED.sub(lambda m: f"unexpected <{m[1].replace(chr(39), '')}>", found[1])
    faults = []
    for match in _FAULT.finditer(_unquoted(told)):
        what = f"unexpected {match[2]}" if match[2] else "is not as the schema wants it"
        faults.append(printable(f"{match[1]}: {what}"))
    return tuple(dict.fromkeys(faults))[:_MAX_ITEMS]


def _unquoted(text: str) -> str:
    """Return it without quoted values; without all that follows a quote that has no end."""
    kept, at = [], 0
    while (quote := _QUOTE.search(text, at)) is not None:
        kept.append(text[at : quote.start()])
        rest = _REST[quote[0]].match(text, quote.end())
        if rest is None:
            return "".join(kept)
        at = rest.end()
    return "".join((*kept, text[at:]))


def printable(text: str, most: int = _MAX_TEXT) -> str:
    """Return one line of what the guest said, cut, without anything that a terminal obeys."""
    cut = text[: most * 4]
    line = " ".join("".join(c if c.isprintable() else " " for c in cut).split())
    return line if len(line) <= most else line[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _members(file: bytes) -> Mapping[str, Any] | None:
    try:
        document = json.loads(file)
    except (ValueError, RecursionError):
        return None
    members = document.get("v1") if isinstance(document, dict) else None
    return members if isinstance(members, dict) else None


def _is_stage(members: Mapping[str, Any], name: str) -> bool:
    stage = members.get(name)
    return isinstance(stage, dict) and _time(stage.get("start")) is not None


def _stage(name: str, found: Mapping[str, Any]) -> CloudInitStage:
    return CloudInitStage(
        name,
        _time(found.get("start")),
        _time(found.get("finished")),
        tuple(_texts(found.get("errors"))),
        _recoverable(found.get("recoverable_errors")),
    )


def _recoverable(found: Any) -> tuple[str, ...]:
    """Return the messages of all levels (WARNING, DEPRECATED, …), each with its level."""
    if not isinstance(found, dict):
        return ()
    told = [
        f"{printable(str(level), 16)}: {message}"
        for level, messages in list(found.items())[:_MAX_ITEMS]
        for message in _texts(messages)
    ]
    return tuple(told[:_MAX_ITEMS])


def _texts(found: Any) -> Sequence[str]:
    if not isinstance(found, list):
        return ()
    return [printable(one) for one in found[:_MAX_ITEMS] if isinstance(one, str)]


def _time(found: Any) -> datetime | None:
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    if not math.isfinite(found) or not 0 < found <= _MAX_EPOCH_S:
        return None
    return datetime.fromtimestamp(found, UTC)
