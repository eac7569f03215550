"""What is asked of guests: handed on where the instance's state allows it."""

import grpc
import pytest
from controller_fakes import Cloud, reason_of, refusal
from qcontroller.controller.v1 import instance_pb2 as pb


async def refused(cloud: Cloud) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.instances.GetGuest(pb.GetGuestRequest(name="web-1"), timeout=10)
    return reason_of(caught.value)[0]


async def with_agent(cloud: Cloud) -> pb.Instance:
    """Launch an instance whose agent answers."""
    instance = await cloud.launch()
    cloud.runner.report(instance.id, agent_connected=True)
    wait = pb.WaitInstanceRequest(name="web-1", condition="AgentConnected", timeout="10")
    answer: pb.WaitInstanceResponse = await cloud.instances.WaitInstance(wait, timeout=10)
    return answer.instance


async def test_a_report_comes_as_the_runner_sent_it(cloud: Cloud) -> None:
    instance = await with_agent(cloud)
    answer = await cloud.instances.GetGuest(pb.GetGuestRequest(name="web-1"), timeout=10)
    assert (answer.guest.hostname, answer.guest.agent_version) == (instance.id, "7.2")


async def test_a_guest_that_does_not_run_is_not_asked(cloud: Cloud) -> None:
    assert await refused(cloud) == "INSTANCE_NOT_FOUND"
    await cloud.launch(start=False)
    assert await refused(cloud) == "INSTANCE_STATE_CONFLICT"


async def test_a_guest_whose_agent_has_gone_is_told_by_the_instances_name(cloud: Cloud) -> None:
    await with_agent(cloud)
    cloud.runner.faults["read_guest"] = [refusal("GUEST_AGENT_UNAVAILABLE")]
    assert await refused(cloud) == "GUEST_AGENT_UNAVAILABLE"
