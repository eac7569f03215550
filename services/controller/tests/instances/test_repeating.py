"""Requests that come twice: at once, again after a lost answer, under a key and without one."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from controller.database import DatabaseUnavailable
from controller_fakes import SUCCEEDED, Cloud, ended, reason_of
from qcontroller.controller.v1 import instance_pb2 as pb
from qcontroller.controller.v1 import operation_pb2


def launch_of(name: str = "web-1", key: str = "") -> pb.LaunchInstanceRequest:
    options = pb.MutationOptions(request_id=key)
    return pb.LaunchInstanceRequest(name=name, image="tiny", start=True, options=options)


async def operations_of(cloud: Cloud) -> list[str]:
    listed = await cloud.operations.ListOperations(operation_pb2.ListOperationsRequest(), timeout=10)
    return [operation.id for operation in listed.operations]


async def test_twenty_clients_with_one_key_get_one_machine(cloud: Cloud) -> None:
    request = launch_of(key="once")
    answers = await asyncio.gather(*(cloud.instances.LaunchInstance(request, timeout=20) for _ in range(20)))
    (operation,) = {answer.mutation.operation.id for answer in answers}
    assert sorted(answer.mutation.replayed for answer in answers) == [False, *[True] * 19]
    assert (await cloud.ended(operation)).state == SUCCEEDED
    assert len(cloud.runner.machines) == 1


async def test_of_two_identical_launches_without_a_key_one_is_refused(cloud: Cloud) -> None:
    answers = await asyncio.gather(
        *(cloud.instances.LaunchInstance(launch_of(), timeout=10) for _ in range(2)), return_exceptions=True
    )
    (refused,) = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert reason_of(refused)[0] == "INSTANCE_ALREADY_EXISTS"
    (accepted,) = [answer for answer in answers if not isinstance(answer, BaseException)]
    await cloud.done(accepted.mutation)
    assert len(cloud.runner.machines) == 1


async def test_of_two_identical_verbs_without_a_key_one_is_refused_or_finds_it_done(cloud: Cloud) -> None:
    await cloud.launch()
    answers = await asyncio.gather(*(cloud.ask("Stop") for _ in range(2)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert [reason_of(error)[0] for error in refused] in ([], ["OPERATION_IN_PROGRESS"])
    filed = [answer for answer in answers if isinstance(answer, pb.Mutation) and answer.HasField("operation")]
    assert len(filed) == 1
    await cloud.done(filed[0])


@pytest.mark.parametrize("verb", ["Stop", "Restart", "Pause", "Delete"])
async def test_a_verb_repeated_under_its_key_is_answered_by_the_first(cloud: Cloud, verb: str) -> None:
    """Also when it has been carried out, and the state would refuse it by now."""
    await cloud.launch()
    fields: dict[str, Any] = {"options": pb.MutationOptions(request_id="k")}
    if verb == "Delete":
        fields["force"] = True
    first = await cloud.ask(verb, **fields)
    await cloud.done(first)
    again = await cloud.ask(verb, **fields)
    assert (again.operation.id, again.replayed) == (first.operation.id, True)


async def test_a_client_that_lost_the_answer_gets_it_by_asking_again(cloud: Cloud) -> None:
    """It hangs up while the launch is being accepted; whichever came first, there is one in the end."""
    for attempt in range(8):
        name = f"lost-{attempt}"
        call = cloud.instances.LaunchInstance(launch_of(name, key=name), timeout=10)
        asking = asyncio.ensure_future(_answer(call))
        for _ in range(attempt * 3):
            await asyncio.sleep(0)
        call.cancel()
        await asking
        answer = await cloud.instances.LaunchInstance(launch_of(name, key=name), timeout=10)
        await cloud.done(answer.mutation)
        assert (await cloud.get(name)).status.state == pb.INSTANCE_STATE_RUNNING
    assert len(await operations_of(cloud)) == 8
    assert len(cloud.runner.machines) == 8


async def _answer(call: Any) -> None:
    try:
        await call
    except asyncio.CancelledError:
        return


@pytest.mark.parametrize("fault", [DatabaseUnavailable("away"), KeyError("a defect")])
async def test_an_end_is_not_forgotten_because_of_an_outage_when_it_was_seen(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    instance = await cloud.launch()
    read, faults = cloud.database.read, [fault]

    async def failing(work: Callable[[Any], Any]) -> Any:
        if faults and "Reconciler" in work.__qualname__:
            raise faults.pop()
        return await read(work)

    monkeypatch.setattr(cloud.database, "read", failing)
    cloud.runner.report(instance.id, **ended("QEMU_EXITED"))
    failed = await cloud.until(lambda found: found.status.state == pb.INSTANCE_STATE_FAILED)
    assert failed.status.reason == "QEMU_EXITED"
    assert faults == []
