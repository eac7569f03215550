"""Tables that must be complete, records that must survive writing, settings that must be refused."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from qcontroller.settings.v1.settings_pb2 import BridgeNetworkSettings, RunnerSettings
from qemu_runner import errors
from qemu_runner.domain.boot import ReachedPhase
from qemu_runner.domain.machine import DiskFormat, Layer, MachineId, Nic, PortMapping
from qemu_runner.domain.record import ExitReason, Holding, MachineExit, MachineRecord, Run
from qemu_runner.error_table import CODES, translate
from qemu_runner.settings import parse_settings
from qemu_runner.store.console_log import ConsoleLog
from qemu_runner.store.record_codec import RecordUnreadableError, decode_record, encode_record
from runner_fakes import SPEC
from servicekit.settings import SettingsError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = Run(
    *(3, "/vm-host.sock", "start", "boot", "tcg", "pc-q35-7.2", "max", 1, 256, "7.2", "hash", NOW),
    kernel_start=NOW,
    phases=(ReachedPhase("kernel", NOW, NOW),),
    extra_arguments=("-device", "i6300esb"),
)
RECORD = MachineRecord(
    MachineId("7d0c2f1e-0000-4000-8000-000000000001"),
    7,
    replace(SPEC, nics=(Nic("user", "52:54:00:00:00:01", (PortMapping(2222, 22),)),)),
    prepared=True,
    incarnation=3,
    uid=64_000,
    user_index=4,
    holdings=(Holding("52:54:00:00:00:01", "10.87.0.2", "qc0123456789-0"),),
    layers=(Layer("overlay.qcow2", DiskFormat.QCOW2),),
    run=RUN,
    last_run=RUN,
    exit=MachineExit(ExitReason.STOPPED, "stopped", NOW, code=0),
)


def leaves(root: type[errors.RunnerError]) -> set[type[errors.RunnerError]]:
    below = root.__subclasses__()
    return {root} if not below else set().union(*(leaves(one) for one in below))


def test_every_error_has_its_code_and_reason() -> None:
    assert set(CODES) == leaves(errors.RunnerError)


def test_no_reason_stands_for_two_errors() -> None:
    reasons = [reason for _, reason in CODES.values()]
    assert len(set(reasons)) == len(reasons)


def test_what_is_not_ours_is_not_translated() -> None:
    assert translate(ValueError("secret")) is None


def test_faults_of_a_spec_keep_their_pointers() -> None:
    problem = translate(errors.SpecInvalidError((errors.SpecFault("/vm/disk", "too small."),)))
    assert problem is not None
    assert problem.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [(violation.pointer, violation.detail) for violation in problem.violations] == [
        ("/vm/disk", "too small.")
    ]


def test_a_record_survives_writing_and_reading() -> None:
    assert decode_record(encode_record(RECORD)) == RECORD


def test_keys_of_a_newer_release_are_passed_over() -> None:
    text = encode_record(RECORD).replace('"fence"', '"novelty": 1,\n "fence"', 1)
    assert decode_record(text) == RECORD


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"schema": 2}', '{"schema": 1, "machine_id": 5}'),
        '{"schema": 1, "machine_id": 5, "fence": 1, "spec": []}',
        encode_record(replace(RECORD, run=None)).replace('"run": null', '"run": [1]'),
        "[" * 100_000,
    ],
    ids=["nothing", "list", "empty", "newer", "bare", "spec", "run", "deep"],
)
def test_what_is_no_record_is_said_to_be_none(text: str) -> None:
    with pytest.raises(RecordUnreadableError):
        decode_record(text)


def settings(**changes: object) -> RunnerSettings:
    values: dict[str, object] = {
        "listen": ["unix:/run/r.sock"],
        "state_dir": "/var/lib/qc",
        "image_store": "unix:/run/i.sock",
        "vm_hosts": ["/run/v.sock"],
    }
    return RunnerSettings(**(values | changes))  # type: ignore[arg-type]  # fields by name


def test_settings_have_defaults() -> None:
    found = parse_settings(settings())
    assert (found.node, found.accelerator, found.uid_base) == ("node-1", "auto", 64_000)
    assert (found.default_network, found.user_backend) == ("auto", "passt")
    assert found.bridge is not None
    assert found.bridge.interface == "qc0"


def test_a_bridge_that_is_switched_off_has_no_configuration() -> None:
    found = parse_settings(settings(bridge_network=BridgeNetworkSettings(disabled=True)))
    assert found.bridge is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"listen": []}, "listen"),
        ({"state_dir": "relative"}, "state_dir"),
        ({"state_dir": "/" + "x" * 60}, "too long"),
        ({"accelerator": "hax"}, "hax"),
        # macOS's, of which there are words only (docs/macos.md).
        ({"accelerator": "hvf"}, "hvf"),
        ({"user_subnet": "10.0.0.1/8"}, "10.0.0.1/8"),
        ({"console_limit": "many"}, "many"),
        ({"extra_qemu_args": ["-monitor", "stdio"]}, "extra_qemu_args: '-monitor' is not allowed"),
        ({"extra_qemu_args": ["-device"]}, "extra_qemu_args: '-device' has no value"),
        ({"default_network": "lan"}, "lan"),
        ({"user_backend": "vde"}, "vde"),
        ({"bridge_network": BridgeNetworkSettings(interface="a/b")}, "bridge_network.interface"),
        ({"bridge_network": BridgeNetworkSettings(interface="x" * 16)}, "bridge_network.interface"),
        ({"bridge_network": BridgeNetworkSettings(subnet="10.87.0.0/8")}, "10.87.0.0/8"),
        ({"bridge_network": BridgeNetworkSettings(subnet="10.87.0.0/30")}, "bridge_network.subnet"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_by_name(changes: dict[str, object], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        parse_settings(settings(**changes))


async def read(log: ConsoleLog, offset: int, length: int = 0) -> tuple[int, bytes, int]:
    chunks = [chunk async for chunk in log.read(offset, length)]
    return chunks[0].offset, b"".join(chunk.data for chunk in chunks), chunks[0].total_bytes


async def test_a_console_is_read_by_offset_and_from_the_end(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_bytes(b"0123456789")
    log = ConsoleLog(path, 2**20)
    assert await read(log, 4) == (4, b"456789", 10)
    assert await read(log, 4, 2) == (4, b"45", 10)
    assert await read(log, -3) == (7, b"789", 10)
    assert await read(log, 99) == (10, b"", 10)


async def test_a_console_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert await read(ConsoleLog(tmp_path / "none", 2**20), 0) == (0, b"", 0)


async def test_a_trimmed_console_keeps_its_offsets_and_gives_back_its_blocks(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_bytes(b"a" * 65_536 + b"b" * 8192)
    before = path.stat().st_blocks
    log = ConsoleLog(path, 8192)
    await log.trim()
    assert path.stat().st_blocks < before
    assert await read(log, 0) == (65_536, b"b" * 8192, 73_728)
