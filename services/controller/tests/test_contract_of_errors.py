"""Every error that can reach a client has its row, and events show what GET shows."""

import inspect
from collections.abc import Iterator
from datetime import UTC, datetime
from types import ModuleType

import pytest
from controller import errors
from controller.database import errors as database_errors
from controller.domain.condition import View, derive
from controller.domain.instance import DesiredPower, Failure, Instance, InstanceId, InstanceImage, Resources
from controller.domain.lease import Lease
from controller.domain.lifecycle import InstanceState
from controller.domain.machine import (
    Address,
    BootPhase,
    Guest,
    GuestOs,
    Machine,
    MachineExit,
    MachineNic,
    MachinePhase,
    NicView,
    Port,
)
from controller.domain.policy import Policies, Restarts
from controller.domain.readiness import Readiness
from controller.operations import errors as operation_errors
from controller.problems import TABLE, translate
from controller.records import schema
from controller.records.documents import instance_document
from controller.records.stored_json import from_stored, to_stored
from controller.servicers.convert import instance_message
from controller_fakes import Cloud, running_cloud
from google.protobuf import json_format

# Bases that are never raised, what steps raise towards the engine, and what ends the process.
INTERNAL = {
    errors.ControllerError,
    errors.PeerError,
    errors.PeerRefused,
    operation_errors.OperationsError,
    operation_errors.SubmitRefused,
    operation_errors.CursorError,
    operation_errors.UnknownKind,
    operation_errors.EngineStopped,
    operation_errors.LostLease,
    operation_errors.ShutOut,
    operation_errors.StepError,
    operation_errors.Permanent,
    operation_errors.Retryable,
    operation_errors.NotYet,
    operation_errors.PeerUnavailable,
    database_errors.DatabaseError,
    database_errors.DatabaseInUse,
    database_errors.DatabaseUnsupported,
    database_errors.DatabaseTooNew,
}
MODULES = (errors, operation_errors, database_errors)
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def raised(module: ModuleType) -> Iterator[type[Exception]]:
    for _, found in inspect.getmembers(module, inspect.isclass):
        if issubclass(found, Exception) and found.__module__ == module.__name__:
            yield found


def test_the_table_is_complete() -> None:
    known = {error for module in MODULES for error in raised(module)}
    assert known - INTERNAL == set(TABLE)


def test_a_peers_own_refusal_is_passed_on() -> None:
    refusal = errors.Refusal("RESOURCE_EXHAUSTED", "DISK_FULL", "No space.", {"path": "x"})
    problem = translate(errors.PeerRefused(refusal))
    assert problem is not None
    assert (problem.code.name, problem.reason, problem.metadata) == (
        "RESOURCE_EXHAUSTED",
        "DISK_FULL",
        {"path": "x"},
    )


@pytest.mark.parametrize("error", [ValueError("secret"), operation_errors.LostLease("x")])
def test_what_is_no_error_of_ours_has_no_row(error: Exception) -> None:
    assert translate(error) is None


def an_instance() -> Instance:
    machine = Machine(
        id="i",
        phase=MachinePhase.EXITED,
        exit=MachineExit("QEMU_EXITED", "gone", "stderr", "console"),
        accelerator="tcg",
        nics=(NicView("user", "52:54:00:00:00:01", (Address("10.0.0.1", "ipv4", "user"),), (Port(1, 2),)),),
        guest=Guest("web", GuestOs("debian", "Debian", "Debian 12", "12", "6.1", "x86_64")),
        boot_phases=(BootPhase("kernel", NOW, 900),),
        start_time=NOW,
        boots=2,
        boot_time=NOW,
    )
    return Instance(
        id=InstanceId("i"),
        name="web",
        image=InstanceImage("tiny", "sha256:a", "sha256:b", "qcow2", 1),
        arch="x86_64",
        resources=Resources(1, 64, 1),
        nics=(MachineNic("user", "52:54:00:00:00:01", (Port(1, 2),)),),
        labels={"a": "b"},
        readiness=Readiness(),
        node="node-1",
        state=InstanceState.FAILED,
        reason="QEMU_EXITED",
        desired_power=DesiredPower.RUNNING,
        create_time=NOW,
        machine=machine,
        conditions=derive(View(machine, True, Readiness(), True, 1.0), (), NOW),
        failure=Failure("QEMU_EXITED", "gone", NOW, 3, "SIGKILL", "stderr", "console"),
        policies=Policies(expire_time=NOW, protected=True),
        restarts=Restarts(1, NOW, NOW),
        lease=Lease(60.0, 1, NOW, NOW),
    )


def test_an_event_shows_an_instance_as_get_does() -> None:
    shown = json_format.MessageToDict(
        instance_message(an_instance()), always_print_fields_with_no_presence=True
    )
    del shown["etag"]
    assert instance_document(an_instance()) == plain(shown)


def plain(value: object) -> object:
    """Undo what protojson does otherwise than the contract: 64-bit integers as text, enums with a prefix."""
    if isinstance(value, dict):
        return {
            key: int(item)
            if key in {"generation", "observedGeneration", "durationMs", "boots"}
            else plain(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, str):
        for prefix in ("INSTANCE_STATE_", "DESIRED_POWER_", "CONDITION_STATUS_"):
            value = value.removeprefix(prefix)
    return value


def test_what_is_stored_is_read_back_the_same() -> None:
    machine = an_instance().machine
    assert machine is not None
    assert from_stored(Machine, to_stored(machine)) == machine


async def test_the_migrations_make_the_tables_that_the_queries_use(tmp_path: object) -> None:
    from pathlib import Path  # noqa: PLC0415 - only here

    from alembic.autogenerate import compare_metadata  # noqa: PLC0415
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415

    def differences(conn: object) -> list[str]:
        context = MigrationContext.configure(conn, opts={"compare_type": True})  # type: ignore[arg-type]
        found = compare_metadata(context, schema.metadata)
        names = set(schema.metadata.tables)
        return [repr(entry) for entry in found if any(f"'{name}'" in repr(entry) for name in names)]

    assert isinstance(tmp_path, Path)
    async with running_cloud(tmp_path) as cloud:
        running: Cloud = cloud
        assert await running.database.write(differences) == []
