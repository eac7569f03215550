"""The service's settings, parsed once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qcontroller.settings.v1.settings_pb2 import ControllerSettings
from servicekit.quantities import QuantityError, parse_duration_s
from servicekit.settings import SettingsError

_SQLITE: Final = "sqlite:///"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings with their defaults."""

    listen: tuple[str, ...]
    database: Path
    image_store: str
    runners: tuple[tuple[str, str], ...]
    stop_timeout_s: float = 45.0
    readiness_deadline_s: float = 180.0
    operation_deadline_s: float = 300.0
    slots: int = 8


def parse_settings(message: ControllerSettings) -> Settings:
    """Return the settings.

    Raises:
        SettingsError: One is missing, doubled or unreadable.
    """
    for name in ("listen", "database_url", "image_store", "runners"):
        if not getattr(message, name):
            raise SettingsError(f"{name} is required")
    if not message.database_url.startswith(_SQLITE):
        raise SettingsError(f"database_url: only {_SQLITE}/path is built so far")
    runners = tuple((runner.node, runner.target) for runner in message.runners)
    if len({node for node, _ in runners}) != len(runners) or not all(node and to for node, to in runners):
        raise SettingsError("runners: each needs a node of its own and a target")
    return Settings(
        listen=tuple(message.listen),
        database=Path(message.database_url.removeprefix(_SQLITE)),
        image_store=message.image_store,
        runners=runners,
        stop_timeout_s=_duration("stop_timeout", message.stop_timeout, 45.0),
        readiness_deadline_s=_duration("readiness_deadline", message.readiness_deadline, 180.0),
        operation_deadline_s=_duration("operation_deadline", message.operation_deadline, 300.0),
        slots=message.operation_slots or 8,
    )


def _duration(name: str, text: str, default_s: float) -> float:
    try:
        return parse_duration_s(text) if text else default_s
    except QuantityError as exc:
        raise SettingsError(f"{name}: {exc}") from exc
