"""The contract of readiness: what a launch makes of it, what the runner is told, what its results become."""

import asyncio

import grpc
import pytest
from controller.domain.machine import ProbeView
from controller_fakes import Cloud, reason_of, refusal
from qcontroller.controller.v1 import instance_pb2 as pb

TCP = pb.Probe(tcp=pb.TcpProbe(port=22))
SERIAL = pb.Probe(serial=pb.SerialProbe(match="login:"))


async def wait(cloud: Cloud, timeout: str = "10s") -> pb.Instance:
    request = pb.WaitInstanceRequest(name="web-1", timeout=timeout)
    instance: pb.Instance = (await cloud.instances.WaitInstance(request, timeout=15)).instance
    return instance


async def test_unless_asked_for_it_is_the_agent(cloud: Cloud) -> None:
    instance = await cloud.launch(readiness=pb.Readiness(deadline="90s"))
    assert instance.readiness == pb.Readiness(all=[pb.Probe(agent=pb.AgentProbe())], deadline="90s")


async def test_for_an_image_that_has_no_agent_it_is_the_address(cloud: Cloud) -> None:
    cloud.store.has_agent = False
    instance = await cloud.launch(start=False)
    assert [probe.WhichOneof("kind") for probe in instance.readiness.all] == ["address"]


async def test_without_an_agent_and_without_a_card_it_is_the_agent_still(cloud: Cloud) -> None:
    cloud.store.has_agent = False
    instance = await cloud.launch(start=False, nics=[pb.NicSpec(network="none")])
    assert [probe.WhichOneof("kind") for probe in instance.readiness.all] == ["agent"]


async def test_what_is_asked_is_shown_with_its_defaults(cloud: Cloud) -> None:
    http = pb.Probe(http=pb.HttpProbe())
    instance = await cloud.launch(start=False, readiness=pb.Readiness(all=[TCP, http, SERIAL]))
    assert list(instance.readiness.all) == [TCP, pb.Probe(http=pb.HttpProbe(port=80, path="/")), SERIAL]


async def test_a_wait_is_answered_when_the_last_probe_holds(cloud: Cloud) -> None:
    instance = await cloud.launch(readiness=pb.Readiness(all=[TCP, SERIAL]))
    cloud.runner.report(instance.id, probes=(ProbeView(holds=True), ProbeView(holds=False)))
    waiting = asyncio.ensure_future(wait(cloud))
    cloud.runner.report(instance.id, probes=(ProbeView(holds=True), ProbeView(holds=True)))
    ready = next(one for one in (await waiting).status.conditions if one.type == "Ready")
    assert (ready.status, ready.reason) == (pb.CONDITION_STATUS_TRUE, "ProbesHold")


async def test_a_wait_that_runs_out_tells_what_was_seen_of_the_probe_that_failed(cloud: Cloud) -> None:
    instance = await cloud.launch(readiness=pb.Readiness(all=[TCP, SERIAL]))
    seen = (ProbeView(holds=False, evidence="connection refused"), ProbeView(holds=True))
    cloud.runner.report(instance.id, probes=seen)
    await cloud.until(lambda found: any("refused" in one.message for one in found.status.conditions))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wait(cloud, timeout="1ms")
    assert reason_of(caught.value)[1]["evidence"] == "Still missing: tcp 22 (connection refused)."


async def test_what_the_runner_refuses_of_it_is_refused_at_launch(cloud: Cloud) -> None:
    cloud.runner.faults["plan"] = [refusal("FIELD_INVALID", "INVALID_ARGUMENT")]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.launch(readiness=pb.Readiness(all=[pb.Probe(serial=pb.SerialProbe(match="("))]))
    assert reason_of(caught.value)[0] == "FIELD_INVALID"
