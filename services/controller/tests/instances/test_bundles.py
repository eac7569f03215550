"""A bundle holds what is known of an operation, tells what is missing, and never a secret."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import grpc
import pytest
from controller.errors import PeerAway
from controller_fakes import Cloud, FakeRunner, ended, reason_of, refusal, running_cloud
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from qcontroller.controller.v1 import instance_pb2 as pb
from qcontroller.controller.v1 import operation_pb2

CANARY = "canary-8d1f0c"
HIDDEN = pb.CloudInit(
    userdata=f"#cloud-config\nruncmd: [echo {CANARY}]\n", network_config=f"version: 2\n# {CANARY}\n"
)


async def raw_bundle(cloud: Cloud, operation_id: str) -> bytes:
    request = operation_pb2.GetOperationBundleRequest(id=operation_id)
    return b"".join([part.chunk async for part in cloud.operations.GetOperationBundle(request, timeout=30)])


async def bundle(cloud: Cloud, operation_id: str) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(await raw_bundle(cloud, operation_id))) as archive:
        files: dict[str, bytes] = {}
        for member in archive.getmembers():
            content = archive.extractfile(member)
            assert content is not None
            directory, _, name = member.name.partition("/")
            assert directory == operation_id
            files[name] = content.read()
    return files


def manifest(files: dict[str, bytes]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(files["manifest.json"])
    return document


async def launch(cloud: Cloud, name: str = "web-1") -> operation_pb2.Operation:
    request = pb.LaunchInstanceRequest(name=name, image="tiny", start=True, cloud_init=HIDDEN)
    answer = await cloud.instances.LaunchInstance(request, timeout=10)
    return await cloud.ended(answer.mutation.operation.id)


async def test_a_launch_that_left_nothing_still_has_what_was_seen_when_it_failed(cloud: Cloud) -> None:
    cloud.runner.faults["start"] = [refusal("QEMU_START_FAILED")]
    operation = await launch(cloud)
    assert operation.state == operation_pb2.OPERATION_STATE_FAILED
    assert cloud.runner.directories == set()
    files = await bundle(cloud, operation.id)
    assert {
        "operation.json",
        "events.jsonl",
        "at-failure/instance.json",
        "at-failure/problem.json",
        "at-failure/console.log",
        "at-failure/qemu-argv.json",
        "at-failure/qmp.jsonl",
    } <= set(files)
    assert json.loads(files["at-failure/problem.json"])["reason"] == "QEMU_START_FAILED"
    assert {"name": "now/instance.json", "reason": "The instance is gone."} in manifest(files)["missing"]


async def test_no_file_holds_the_secret_though_the_guest_has_printed_it(cloud: Cloud) -> None:
    cloud.runner.console = f"\x1b[0m{CANARY}\nlogin: ".encode()
    cloud.runner.faults["start"] = [refusal("QEMU_START_FAILED")]
    failed = await launch(cloud)
    running = await launch(cloud, "web-2")
    for operation in (failed, running):
        files = await bundle(cloud, operation.id)
        held = [name for name, content in files.items() if CANARY.encode() in content]
        assert held == []
        assert any(b"login: " in content for content in files.values())


async def test_evidence_that_a_failed_run_left_in_the_instance_is_clean_too(cloud: Cloud) -> None:
    operation = await launch(cloud)
    instance = await cloud.get()
    lost = ended("QEMU_EXITED")
    lost["exit"] = type(lost["exit"])("QEMU_EXITED", "It ended.", "stderr", f"said {CANARY}")
    cloud.runner.report(instance.id, **lost)
    await cloud.until(lambda seen: seen.status.state == pb.INSTANCE_STATE_FAILED)
    files = await bundle(cloud, operation.id)
    assert b"said" in files["now/instance.json"]
    assert [name for name, content in files.items() if CANARY.encode() in content] == []


async def test_a_finished_operation_has_the_machine_as_it_is_now_and_its_host(cloud: Cloud) -> None:
    files = await bundle(cloud, (await launch(cloud)).id)
    assert {"now/instance.json", "now/console.log", "now/qmp.jsonl", "node.json", "doctor.json"} <= set(files)
    listed = {entry["name"] for entry in manifest(files)["files"]}
    assert listed == set(files) - {"manifest.json"}


async def test_a_runner_that_is_away_is_told_and_hinders_nothing(cloud: Cloud) -> None:
    operation = await launch(cloud)
    cloud.runner.break_off()
    files = await bundle(cloud, operation.id)
    missing = {entry["name"]: entry["reason"] for entry in manifest(files)["missing"]}
    assert missing["now/runner"] == "gone"
    assert json.loads(files["node.json"])["state"] == "UNREACHABLE"
    assert "operation.json" in files


async def test_a_failure_whose_evidence_cannot_be_had_ends_as_it_would_have(cloud: Cloud) -> None:
    cloud.runner.faults["evidence"] = [PeerAway("RUNNER_UNAVAILABLE", "gone"), RuntimeError("a defect")]
    kept = []
    for name in ("one", "two"):
        cloud.runner.faults["start"] = [refusal("QEMU_START_FAILED")]
        operation = await launch(cloud, name)
        assert operation.error.reason == "QEMU_START_FAILED"
        kept.append(await bundle(cloud, operation.id))
    away, broken = kept
    assert json.loads(away["at-failure/missing.json"]) == {"runner": "gone"}
    assert [name for name in broken if name.startswith("at-failure/")] == []


async def test_the_bundle_of_an_unknown_operation_is_not_found(cloud: Cloud) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw_bundle(cloud, "op-none")
    assert reason_of(caught.value)[0] == "OPERATION_NOT_FOUND"


async def test_evidence_survives_a_restart_and_goes_with_its_operation(tmp_path: Path) -> None:
    runner = FakeRunner()
    async with running_cloud(tmp_path, runner) as cloud:
        runner.faults["start"] = [refusal("QEMU_START_FAILED")]
        operation = await launch(cloud)
    async with running_cloud(tmp_path, runner) as cloud:
        assert "at-failure/console.log" in await bundle(cloud, operation.id)


def test_the_last_lines_of_a_trace_are_kept_and_no_others() -> None:
    import logging  # noqa: PLC0415 - only here

    from servicekit.logs import RecentLines  # noqa: PLC0415

    kept, log = RecentLines("test"), logging.Logger("test")  # noqa: LOG001 - apart from all others
    log.addHandler(kept)
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("one") as span:
        log.info("within")
    with tracer.start_as_current_span("two"):
        log.info("elsewhere")
    log.info("without")
    lines = kept.of(trace.format_trace_id(span.get_span_context().trace_id))
    assert [json.loads(line)["event"] for line in lines] == ["within"]
