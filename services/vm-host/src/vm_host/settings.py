"""Settings: the protojson of ``qcontroller.settings.v1.VmHostSettings``, environment over it.

Reads what the other services read through protobuf with the standard library alone; both casings are
accepted, an unknown or doubled key is an error.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from vm_host.errors import SettingsInvalidError

ENV_PREFIX = "QC_VM_HOST_"
MAX_SOCKET_PATH_BYTES = 107  # sun_path, less its final NUL (unix(7))

_KEYS = {
    "socketPath": "socket_path",
    "stopGrace": "stop_grace",
    "generation": "generation",
    "allowedPrograms": "allowed_programs",
    "logLevel": "log_level",
}
_T = TypeVar("_T")

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,9})?)(s|m)")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a vm-host is told.

    Attributes:
        socket_path: Where it listens.
        stop_grace_s: Seconds that guests get to power down when it is asked to stop.
        generation: Label that tells builds apart; shown in hello.
        allowed_programs: What may be spawned: base names looked up in the fixed PATH, or absolute
            paths; requests name them by base name.
        log_level: Lowest level that is logged.
    """

    socket_path: Path
    stop_grace_s: float = 110.0
    generation: str = ""
    allowed_programs: tuple[str, ...] = ("qemu-system-x86_64", "qemu-system-aarch64", "passt")
    log_level: str = "INFO"


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the file, if any, and the variables ``QC_VM_HOST_*`` over it.

    Raises:
        SettingsInvalidError: Naming the file or variable and the fault.
    """
    values: dict[str, tuple[str, Any]] = {}
    if path is not None:
        for key, value in _read(path).items():
            name = _KEYS.get(key, key)
            if name not in _KEYS.values():
                raise SettingsInvalidError(str(path), f"unknown key {key!r}")
            if name in values:
                raise SettingsInvalidError(str(path), f"{key!r} is given twice")
            values[name] = (f"{path}: {key}", value)
    for variable, text in environ.items():
        if not variable.startswith(ENV_PREFIX):
            continue
        name = variable.removeprefix(ENV_PREFIX).lower()
        if name not in _KEYS.values():
            raise SettingsInvalidError(variable, "no such setting")
        value = [part for part in text.split(",") if part] if name == "allowed_programs" else text
        values[name] = (variable, value)
    # protojson writes an unset field as its empty value.
    values = {name: (source, value) for name, (source, value) in values.items() if value not in ("", [])}
    if "socket_path" not in values:
        raise SettingsInvalidError(str(path or "environment"), "socketPath is missing")
    default = Settings(Path())

    def parse(name: str, parser: Callable[[str, Any], _T], otherwise: _T) -> _T:
        return parser(*values[name]) if name in values else otherwise

    return Settings(
        socket_path=parse("socket_path", _socket_path, default.socket_path),
        stop_grace_s=parse("stop_grace", _duration_s, default.stop_grace_s),
        generation=parse("generation", _text, default.generation),
        allowed_programs=parse("allowed_programs", _programs, default.allowed_programs),
        log_level=parse("log_level", _log_level, default.log_level),
    )


def _read(path: Path) -> dict[str, Any]:
    def no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("a key occurs twice")
        return dict(pairs)

    try:
        document = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=no_doubles)
    except OSError as exc:
        raise SettingsInvalidError(str(path), exc.strerror or str(exc)) from exc
    except ValueError as exc:
        raise SettingsInvalidError(str(path), str(exc)) from exc
    if not isinstance(document, dict):
        raise SettingsInvalidError(str(path), "not a JSON object")
    return document


def _text(source: str, value: object) -> str:
    if not isinstance(value, str):
        raise SettingsInvalidError(source, "must be a string")
    return value


def _socket_path(source: str, value: object) -> Path:
    path = Path(_text(source, value))
    if not path.is_absolute() or len(bytes(path)) > MAX_SOCKET_PATH_BYTES:
        raise SettingsInvalidError(
            source, f"must be an absolute path of at most {MAX_SOCKET_PATH_BYTES} bytes"
        )
    return path


def _duration_s(source: str, value: object) -> float:
    match = _DURATION.fullmatch(_text(source, value))
    if match is None:
        raise SettingsInvalidError(source, 'must be a duration such as "110s" or "2m"')
    return float(match[1]) * (60 if match[2] == "m" else 1)


def _programs(source: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise SettingsInvalidError(source, "must be a list of programs")
    programs = tuple(_text(source, program) for program in value)
    for program in programs:
        if "/" in program and not program.startswith("/"):
            raise SettingsInvalidError(source, f"{program!r} must be a base name or an absolute path")
    if len({PurePosixPath(program).name for program in programs}) < len(programs):
        raise SettingsInvalidError(source, "base names must differ")
    return programs


def _log_level(source: str, value: object) -> str:
    level = _text(source, value) or "INFO"
    if level not in _LEVELS:
        raise SettingsInvalidError(source, f"must be one of {', '.join(_LEVELS)}")
    return level
