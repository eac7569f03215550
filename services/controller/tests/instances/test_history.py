"""What an operation shows of itself: log, times, who took whose place, and when it can be cancelled."""

import asyncio

import grpc
import pytest
from controller.errors import PeerAway
from controller.settings import parse_settings
from controller_fakes import SUCCEEDED, Cloud, reason_of, refusal
from qcontroller.controller.v1 import instance_pb2 as pb
from qcontroller.controller.v1 import operation_pb2
from qcontroller.settings.v1 import settings_pb2
from servicekit.settings import SettingsError


async def launched(cloud: Cloud, name: str = "web-1") -> operation_pb2.Operation:
    request = pb.LaunchInstanceRequest(
        name=name, image="tiny", start=True, cloud_init=pb.CloudInit(userdata="log-canary")
    )
    answer = await cloud.instances.LaunchInstance(request, timeout=10)
    return await cloud.ended(answer.mutation.operation.id)


async def not_cancelled(cloud: Cloud, operation_id: str) -> tuple[str, dict[str, str]]:
    request = operation_pb2.CancelOperationRequest(id=operation_id)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.operations.CancelOperation(request, timeout=10)
    return reason_of(caught.value)


async def test_a_launch_tells_in_lines_what_it_did(cloud: Cloud) -> None:
    operation = await launched(cloud)
    lines = [line.message for line in operation.log]
    assert any("tiny" in line for line in lines)
    assert any("node-1 has the machine's files" in line for line in lines)
    times = [line.time.ToDatetime() for line in operation.log]
    assert times == sorted(times)
    assert "log-canary" not in str(operation)


async def test_a_failure_and_what_was_undone_for_it_are_in_the_log(cloud: Cloud) -> None:
    cloud.runner.faults["start"] = [refusal("QEMU_START_FAILED")]
    lines = [line.message for line in (await launched(cloud)).log]
    failed = next(number for number, line in enumerate(lines) if line.startswith("Failed: "))
    assert "QEMU_START_FAILED" in lines[failed]
    assert lines[failed + 1 :][-1] == "image: undone"


async def test_what_is_tried_again_says_why_and_says_it_once(cloud: Cloud) -> None:
    away = PeerAway("RUNNER_UNAVAILABLE", "The runner is gone.")
    cloud.runner.faults["prepare"] = [away, away]
    operation = await launched(cloud)
    assert operation.state == SUCCEEDED
    told = [line.message for line in operation.log if "RUNNER_UNAVAILABLE" in line.message]
    assert told == ["machine: The runner is gone. (RUNNER_UNAVAILABLE) It is tried again."]


async def test_time_goes_on_until_the_end_and_then_stands_still(cloud: Cloud) -> None:
    operation = await launched(cloud)
    again = await cloud.ended(operation.id)
    lasted = operation.end_time.ToMilliseconds() - operation.create_time.ToMilliseconds()
    assert abs(operation.elapsed_ms - lasted) <= 1
    assert again.elapsed_ms == operation.elapsed_ms


async def test_who_took_whose_place_is_told_by_both(cloud: Cloud) -> None:
    at_start = cloud.runner.at("start")
    request = pb.LaunchInstanceRequest(name="web-1", image="tiny", start=True)
    first = (await cloud.instances.LaunchInstance(request, timeout=10)).mutation.operation.id
    await at_start.wait()
    second = (await cloud.ask("Delete")).operation.id
    cloud.runner.gates.pop("start").set()
    ended, successor = await asyncio.gather(cloud.ended(first), cloud.ended(second))
    assert (ended.superseded_by, list(ended.supersedes)) == (second, [])
    assert (successor.superseded_by, list(successor.supersedes)) == ("", [first])


async def test_a_finished_operation_cannot_be_cancelled(cloud: Cloud) -> None:
    operation = await launched(cloud)
    reason, metadata = await not_cancelled(cloud, operation.id)
    assert (reason, metadata["state"]) == ("OPERATION_NOT_CANCELLABLE", "SUCCEEDED")


async def test_a_delete_past_its_point_of_no_return_cannot_be_cancelled(cloud: Cloud) -> None:
    await launched(cloud)
    at_delete = cloud.runner.at("delete")
    mutation = await cloud.ask("Delete", force=True)
    await at_delete.wait()
    assert (await not_cancelled(cloud, mutation.operation.id))[0] == "OPERATION_NOT_CANCELLABLE"
    cloud.runner.gates.pop("delete").set()
    await cloud.done(mutation)


async def test_an_unknown_operation_is_not_found(cloud: Cloud) -> None:
    assert (await not_cancelled(cloud, "op-none"))[0] == "OPERATION_NOT_FOUND"


def settings(**retention: str | int) -> settings_pb2.ControllerSettings:
    return settings_pb2.ControllerSettings(
        listen=["unix:/c.sock"],
        database_url="sqlite:////c.db",
        image_store="unix:/i.sock",
        runners=[settings_pb2.RunnerEndpoint(node="node-1", target="unix:/r.sock")],
        retention=settings_pb2.RetentionSettings(**retention),  # type: ignore[arg-type]  # names of its fields
    )


def test_retention_is_30_days_20_operations_7_days_and_48_hours_unless_told() -> None:
    kept = parse_settings(settings()).retention
    days = (kept.operations.days, kept.kept_per_subject, kept.events.days, kept.keys.days)
    assert days == (30, 20, 7, 2)


def test_retention_follows_its_settings_and_none_means_none() -> None:
    kept = parse_settings(settings(operations="24h", operations_kept=0, events="1h", keys="10m")).retention
    seconds = [part.total_seconds() for part in (kept.operations, kept.events, kept.keys)]
    assert (seconds, kept.kept_per_subject) == ([86_400, 3600, 600], 0)


@pytest.mark.parametrize("name", ["operations", "events", "keys"])
@pytest.mark.parametrize("text", ["59s", "soon"])
def test_what_would_forget_at_once_or_cannot_be_read_is_refused(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=name):
        parse_settings(settings(**{name: text}))
