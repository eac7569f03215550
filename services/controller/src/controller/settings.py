"""The controller's settings, parsed once; defaults stand here."""

import math
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from qcontroller.settings.v1 import settings_pb2 as messages
from qcontroller.settings.v1.settings_pb2 import CapacitySettings, ControllerSettings, PolicySettings
from servicekit.quantities import QuantityError, parse_duration_s, parse_size_mib
from servicekit.settings import SettingsError
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from controller.database import Target
from controller.domain.capacity import Overcommit
from controller.domain.restarting import RestartRules
from controller.operations import RetentionSettings

_FETCH_S: Final = 2 * 3600.0
_LEASE_DELETE_AFTER_S: Final = 600.0
# A retry that comes a little later must find its key, a reader that pauses its cursor.
_LEAST_KEPT: Final = timedelta(minutes=1)
_SQLITE: Final = "sqlite:///"
_POSTGRESQL: Final = frozenset({"postgresql", "postgres"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Durations in seconds; `runners` maps node names to gRPC targets."""

    listen: tuple[str, ...]
    database: Target
    image_store: str
    runners: dict[str, str]
    stop_timeout_s: float
    readiness_deadline_s: float
    operation_deadline_s: float
    operation_slots: int
    secret_key_file: Path | None = None
    fetch_deadline_s: float = _FETCH_S
    overcommit: Overcommit = field(default_factory=Overcommit)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    restart_rules: RestartRules = field(default_factory=RestartRules)
    lease_delete_after_s: float = _LEASE_DELETE_AFTER_S


def parse_settings(message: ControllerSettings) -> Settings:
    """Return the settings of `message`.

    Raises:
        SettingsError: Something is missing or cannot be used.
    """
    if not message.listen:
        raise SettingsError("listen: name at least one address")
    if not message.image_store:
        raise SettingsError("imageStore: name the image store's address")
    runners = {runner.node: runner.target for runner in message.runners}
    if not runners or len(runners) != len(message.runners):
        raise SettingsError("runners: name at least one, each node once")
    return Settings(
        listen=tuple(message.listen),
        database=_database(message.database_url),
        image_store=message.image_store,
        runners=runners,
        stop_timeout_s=_duration("stopTimeout", message.stop_timeout, 45.0),
        readiness_deadline_s=_duration("readinessDeadline", message.readiness_deadline, 180.0),
        operation_deadline_s=_duration("operationDeadline", message.operation_deadline, 300.0),
        fetch_deadline_s=_duration("fetchDeadline", message.fetch_deadline, _FETCH_S),
        operation_slots=message.operation_slots or 8,
        secret_key_file=Path(message.secret_key_file) if message.secret_key_file else None,
        overcommit=_overcommit(message.capacity),
        retention=_retention(message.retention),
        restart_rules=_restart_rules(message.policies),
        lease_delete_after_s=_duration(
            "policies.leaseDeleteAfter", message.policies.lease_delete_after, _LEASE_DELETE_AFTER_S
        ),
    )


def _database(url: str) -> Target:
    if url.startswith(_SQLITE):
        return Path(url.removeprefix(_SQLITE))
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    # The URL may hold a password: it is not repeated.
    if parsed is None or parsed.drivername not in _POSTGRESQL:
        raise SettingsError(f"databaseUrl: must begin with {_SQLITE} or postgresql://")
    if not parsed.database:
        raise SettingsError("databaseUrl: name a database, as in postgresql://user@host/qcontroller")
    return parsed


def _restart_rules(message: PolicySettings) -> RestartRules:
    usual = RestartRules()
    rules = RestartRules(
        _duration("policies.restartDelay", message.restart_delay, usual.delay_s),
        _duration("policies.restartDelayMax", message.restart_delay_max, usual.most_delay_s),
        _duration("policies.restartReset", message.restart_reset, usual.reset_s),
        message.restart_limit or usual.limit,
    )
    if not 0 < rules.delay_s <= rules.most_delay_s:
        raise SettingsError("policies.restartDelay: must be more than 0 and at most restartDelayMax")
    return rules


def _duration(name: str, text: str, default_s: float) -> float:
    if not text:
        return default_s
    try:
        return parse_duration_s(text)
    except QuantityError as exc:
        raise SettingsError(f"{name}: {exc}") from exc


def _retention(message: messages.RetentionSettings) -> RetentionSettings:
    usual = RetentionSettings()

    def kept(name: str, text: str, default: timedelta) -> timedelta:
        found = timedelta(seconds=_duration(f"retention.{name}", text, default.total_seconds()))
        if found < _LEAST_KEPT:
            raise SettingsError(f"retention.{name}: must be at least {_LEAST_KEPT.total_seconds():.0f}s")
        return found

    return RetentionSettings(
        events=kept("events", message.events, usual.events),
        operations=kept("operations", message.operations, usual.operations),
        kept_per_subject=(
            message.operations_kept if message.HasField("operations_kept") else usual.kept_per_subject
        ),
        keys=kept("keys", message.keys, usual.keys),
    )


def _overcommit(message: CapacitySettings) -> Overcommit:
    default = Overcommit()
    try:
        reserve_mib = parse_size_mib(message.memory_reserve) if message.memory_reserve else None
    except QuantityError as exc:
        raise SettingsError(f"capacity.memoryReserve: {exc}") from exc
    return Overcommit(
        cpus=_ratio("cpuRatio", message.cpu_ratio, default.cpus),
        memory=_ratio("memoryRatio", message.memory_ratio, default.memory),
        disk=_ratio("diskRatio", message.disk_ratio, default.disk),
        reserve_mib=reserve_mib,
    )


def _ratio(name: str, given: float, default: float) -> float:
    if not math.isfinite(given) or given < 0:
        raise SettingsError(f"capacity.{name}: must be a positive number")
    return given or default
