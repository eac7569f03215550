"""What is made of cloud-init's own files, well-meant and hostile."""

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from qemu_runner.convert import cloud_init_message
from qemu_runner.domain.cloud_init import report_of, schema_errors_in, warnings_in

# As cloud-init 22.4.2 (Debian 12) writes them.
STATUS: dict[str, Any] = {
    "v1": {
        "datasource": "DataSourceNoCloud [seed=/dev/vdb]",
        "init": {"errors": [], "finished": 1767225611.5, "start": 1767225610.25},
        "init-local": {"errors": [], "finished": 1767225605.0, "start": 1767225604.0},
        "modules-config": {"errors": [], "finished": 1767225613.0, "start": 1767225612.0},
        "modules-final": {
            "errors": [
                "('scripts-user', RuntimeError('Runparts: 1 failures (runcmd) in 1 attempted commands'))"
            ],
            "finished": 1767225615.0,
            "start": 1767225614.0,
        },
        "stage": None,
    }
}
RESULT: dict[str, Any] = {
    "v1": {"datasource": "DataSourceNoCloud", "errors": STATUS["v1"]["modules-final"]["errors"]}
}

STAGES = ("init-local", "init", "modules-init", "modules-config", "modules-final")


def dumped(document: Any) -> bytes:
    return json.dumps(document).encode()


def test_stages_errors_and_failed_modules_are_told() -> None:
    report = report_of(dumped(STATUS), dumped(RESULT))
    assert report is not None
    assert (report.state, report.datasource) == ("error", "DataSourceNoCloud")
    assert [stage.name for stage in report.stages] == [
        "init-local",
        "init",
        "modules-config",
        "modules-final",
    ]
    assert report.failed_modules == ("scripts-user",)
    # Once, though both files tell it.
    assert len(report.errors) == 1
    first = report.stages[0]
    assert first.start_time is not None
    assert first.finish_time is not None
    assert (first.finish_time - first.start_time).total_seconds() == 1.0
    assert not report.tells_warnings


def test_without_a_result_it_runs() -> None:
    status = {"v1": {"stage": "init", "init": {"errors": [], "finished": None, "start": 5.0}}}
    report = report_of(dumped(status), b"")
    assert report is not None
    assert report.state == "running"
    assert report.stages[0].finish_time is None


def test_recoverable_errors_are_warnings_with_their_level() -> None:
    stage = {
        "start": 1.0,
        "errors": [],
        "recoverable_errors": {"WARNING": ["cloud-config failed schema validation!"]},
    }
    report = report_of(dumped({"v1": {"init": stage}}), dumped({"v1": {"errors": []}}))
    assert report is not None
    assert (report.state, report.warnings) == ("done", ("WARNING: cloud-config failed schema validation!",))
    assert report.tells_warnings
    assert report.doubts_schema


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xff\x00",
        b"[]",
        b"null",
        b'{"v1": 5}',
        b"[" * 100_000,
        b'{"v1": ' + b"9" * 10_000 + b"}",
    ],
)
def test_garbage_is_nothing(garbage: bytes) -> None:
    assert report_of(garbage, garbage) is None


@pytest.mark.parametrize(
    "stage",
    [
        None,
        5,
        "running",
        [],
        {"start": "yesterday"},
        {"start": True},
        {"start": -1.0},
        {"start": float("nan")},
        {"start": float("inf")},
        {"start": 10**300},
        {"start": 1e15},
    ],
)
def test_a_stage_of_the_wrong_shape_is_none(stage: object) -> None:
    report = report_of(dumped({"v1": {"init": stage, "made-up": {"start": 1.0}}}), b"")
    assert report is not None
    assert report.stages == ()


def test_members_of_the_wrong_type_are_left_out() -> None:
    stage = {
        "start": 1.0,
        "finished": "soon",
        "errors": [5, None, {"a": 1}, "real"],
        "recoverable_errors": {"WARNING": "no list", "ERROR": [1, "kept"]},
    }
    report = report_of(
        dumped({"v1": {"init": stage, "datasource": ["x"]}}), dumped({"v1": {"errors": "no list"}})
    )
    assert report is not None
    assert report.errors == ("real",)
    assert report.warnings == ("ERROR: kept",)
    assert report.datasource == ""


def test_what_is_endless_is_cut() -> None:
    stage = {
        "start": 1.0,
        "errors": ["x" * 10_000] * 100,
        "recoverable_errors": {f"L{n}" * 50: ["y" * 1000] * 40 for n in range(40)},
    }
    report = report_of(dumped({"v1": {"init": stage, "datasource": "d" * 10_000}}), b"")
    assert report is not None
    assert len(report.errors) == 16
    assert len(report.warnings) <= 16
    assert max(map(len, (*report.errors, report.datasource))) <= 300
    assert max(map(len, report.warnings)) <= 320


def test_nothing_that_a_terminal_obeys_is_kept() -> None:
    stage = {"start": 1.0, "errors": ["\x1b[2J\u202eevil\x00\r\nnext"]}
    report = report_of(dumped({"v1": {"init": stage}}), b"")
    assert report is not None
    assert report.errors == ("[2J evil next",)


def test_warnings_of_the_log_are_told_once_without_their_times() -> None:
    log = (
        b"2026-01-01 00:00:01,123 - schema.py[WARNING]: Invalid cloud-config provided: Please run\n"
        b"2026-01-01 00:00:09,999 - schema.py[WARNING]: Invalid cloud-config provided: Please run\n"
        b"2026-01-01 00:00:10,000 - util.py[DEBUG]: nothing\n"
    )
    assert warnings_in(log) == ("schema.py: Invalid cloud-config provided: Please run",)


def test_schema_errors_name_places_and_keys_and_no_values() -> None:
    output = (
        b"Error:\nCloud config schema errors: chpasswd.list: 'root:hunter2' is not of type 'array', "
        b"ntp: 'see, password: hunter2' is not of type 'object', pin: 4711 is not of type 'string', "
        b"users.0: {'name': 'x', 'passwd': 'hunter2'} is not valid under any of the given schemas, "
        b"write_files.0: Additional properties are not allowed ('contnt', 'moed' were unexpected)\n\n"
    )
    told = schema_errors_in(output)
    assert told == (
        "chpasswd.list: is not as the schema wants it",
        "ntp: is not as the schema wants it",
        "pin: is not as the schema wants it",
        "users.0: is not as the schema wants it",
        "write_files.0: unexpected contnt, moed",
    )


@pytest.mark.parametrize(
    "output", [b"", b"Valid schema user-data", b"\xff" * 100, b"Cloud config schema errors: "]
)
def test_output_that_tells_no_schema_errors_gives_none(output: bytes) -> None:
    assert schema_errors_in(output) == ()


def test_hostile_output_of_the_schema_is_cut_in_time() -> None:
    assert len(schema_errors_in(b"Cloud config schema errors: " + b"a: '" * 100_000)) <= 16
    assert len(schema_errors_in(b"Cloud config schema errors: " + b"a: 'b\\" * 100_000)) <= 16


@pytest.mark.parametrize("unit", [b"\\'", b"'", b'"', b"\\", b"a: '\\", b"'a\"", b'"\\\\'])
def test_hostile_quotes_cost_no_more_than_their_length(unit: bytes) -> None:
    began = time.process_time()
    schema_errors_in(b"Cloud config schema errors: " + unit * (64 * 1024 // len(unit)))
    # One pass takes milliseconds; one for each quote took eleven seconds.
    assert time.process_time() - began < 1


@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize("ended", [True, False])
def test_a_quoted_value_is_left_out_however_long_it_is(quote: str, ended: bool) -> None:
    value = f"{quote}{'x' * 10_001}, hunter2: y{quote if ended else ''}"
    told = schema_errors_in(f"Cloud config schema errors: a.0: {value} is not of type 'array'".encode())
    assert told == ("a.0: is not as the schema wants it",)


def test_a_quote_inside_a_value_does_not_end_it() -> None:
    told = schema_errors_in(
        rb"Cloud config schema errors: a: 'it\'s, hunter2: y\\', b: "
        b'"it\'s, hunter3: y", c: {} is not valid'
    )
    assert [fault.partition(":")[0] for fault in told] == ["a", "b", "c"]


def test_a_report_has_room_in_16_kib_and_keeps_what_matters_most() -> None:
    wide = "\N{CUNEIFORM SIGN A}" * 300
    stage = {
        "start": 1.0,
        "finished": 2.0,
        "errors": [f"('module-{n}', {n}) {wide}" for n in range(16)],
        "recoverable_errors": {f"W{n}": [f"{n}{m} {wide}" for m in range(16)] for n in range(16)},
    }
    report = report_of(dumped({"v1": dict.fromkeys(STAGES, stage)}), dumped({"v1": {"errors": [wide]}}))
    assert report is not None
    assert cloud_init_message(report).ByteSize() > 128 * 1024
    bounded = replace(report, schema_errors=(wide,) * 16).bounded()
    assert cloud_init_message(bounded).ByteSize() <= 16 * 1024
    assert (bounded.state, len(bounded.stages), len(bounded.failed_modules)) == ("error", 5, 16)
    assert bounded.errors[:10] == report.errors[:10]


def test_texts_that_stages_repeat_go_first() -> None:
    stages = {
        name: {"start": 1.0, "errors": [f"{name} {n} {'x' * 250}" for n in range(3)]} for name in STAGES
    }
    report = report_of(dumped({"v1": stages | {"init": stages["init"] | {"errors": ["w"] * 3}}}), b"")
    assert report is not None
    assert report.bounded() is report, "what has room stays as it is"
    report = replace(report, warnings=tuple(f"{n} {'y' * 290}" for n in range(36)))
    bounded = report.bounded()
    assert (bounded.errors, bounded.warnings) == (report.errors, report.warnings)
    assert all(stage.errors == () for stage in bounded.stages)
