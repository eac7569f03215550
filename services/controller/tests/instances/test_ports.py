"""Published ports and networks: asked of the runner at once, changed live where the network can."""

import asyncio

import grpc
import pytest
from controller_fakes import Cloud, pointers_of, reason_of, refusal
from qcontroller.controller.v1 import instance_pb2 as pb
from qcontroller.controller.v1 import operation_pb2

SSH = pb.PortMapping(host=2222, guest=22)
WEB = pb.PortMapping(host=8081, guest=80)


def published(instance: pb.Instance) -> list[list[int]]:
    return [[port.host for port in nic.ports] for nic in instance.status.nics]


async def patched(cloud: Cloud, *ports: pb.PortMapping) -> pb.UpdateInstanceResponse:
    request = pb.UpdateInstanceRequest(name="web-1", ports=pb.PortList(ports=ports))
    answer: pb.UpdateInstanceResponse = await cloud.instances.UpdateInstance(request, timeout=10)
    return answer


async def test_what_default_stood_for_at_the_launch_is_kept(cloud: Cloud) -> None:
    cloud.runner.default = "qc0"
    await cloud.launch()
    cloud.runner.default = "user"
    await cloud.verb("Restart")
    instance = await cloud.get()
    assert instance.status.nics[0].network == "qc0"
    assert cloud.runner.specs[instance.id].nics[0].network == "qc0"


async def test_the_reserved_address_is_assigned_before_the_first_start_and_after_the_stop(
    cloud: Cloud,
) -> None:
    cloud.runner.default = "qc0"
    instance = await cloud.launch(start=False)
    (address,) = instance.status.nics[0].addresses
    assert (address.address, address.source) == ("10.87.0.16", "reserved")
    assigned = next(one for one in instance.status.conditions if one.type == "AddressAssigned")
    assert (assigned.status, assigned.reason) == (pb.CONDITION_STATUS_TRUE, "AddressReserved")


async def test_ports_on_qc0_change_while_the_guest_runs(cloud: Cloud) -> None:
    cloud.runner.default = "qc0"
    await cloud.launch(ports=[SSH])
    answer = await patched(cloud, WEB)
    assert list(answer.notes) == []
    await cloud.done(answer.mutation)
    assert published(await cloud.get()) == [[8081]]
    assert cloud.runner.calls.count("start") == 1


async def test_ports_on_user_wait_for_the_next_start_and_the_answer_says_so(cloud: Cloud) -> None:
    await cloud.launch(ports=[SSH])
    answer = await patched(cloud, WEB)
    assert list(answer.notes) == ["Published ports take effect at the next start."]
    await cloud.done(answer.mutation)
    assert published(await cloud.get()) == [[2222]]
    assert published(await cloud.verb("Restart")) == [[8081]]


async def test_a_port_that_cannot_be_had_is_refused_before_anything_is_filed(cloud: Cloud) -> None:
    cloud.runner.default = "qc0"
    await cloud.launch()
    cloud.runner.faults["plan"] = [refusal("PORT_IN_USE")]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await patched(cloud, WEB)
    assert reason_of(caught.value)[0] == "PORT_IN_USE"
    listed = await cloud.operations.ListOperations(operation_pb2.ListOperationsRequest(), timeout=10)
    assert [operation.kind for operation in listed.operations] == ["launch"]


async def test_a_change_that_fails_later_leaves_the_ports_as_they_were(cloud: Cloud) -> None:
    cloud.runner.default = "qc0"
    await cloud.launch(ports=[SSH])
    cloud.runner.faults["prepare"] = [refusal("PORT_IN_USE")]
    answer = await patched(cloud, WEB)
    operation = await cloud.ended(answer.mutation.operation.id)
    assert operation.error.reason == "PORT_IN_USE"
    instance = await cloud.get()
    assert published(instance) == [[2222]]
    restarted = await cloud.verb("Restart")
    assert published(restarted) == [[2222]]


async def test_ports_of_a_stopped_instance_are_reserved_at_once(cloud: Cloud) -> None:
    instance = await cloud.launch(start=False)
    answer = await patched(cloud, WEB)
    await cloud.done(answer.mutation)
    assert [port.host for port in cloud.runner.specs[instance.id].nics[0].ports] == [8081]


async def test_the_same_patch_again_changes_nothing_and_asks_nobody(cloud: Cloud) -> None:
    cloud.runner.default = "qc0"
    await cloud.launch(ports=[SSH])
    cloud.runner.faults["plan"] = [refusal("PORT_IN_USE")]
    answer = await patched(cloud, SSH)
    assert not answer.mutation.HasField("operation")


async def test_ports_belong_to_the_first_nic_that_can_publish(cloud: Cloud) -> None:
    cloud.runner.default = "qc0"
    nics = [pb.NicSpec(network="bridge:br0"), pb.NicSpec()]
    instance = await cloud.launch(nics=nics, ports=[SSH])
    assert [nic.network for nic in instance.status.nics] == ["bridge:br0", "qc0"]
    assert published(instance) == [[], [2222]]
    await cloud.done((await patched(cloud, WEB)).mutation)
    assert published(await cloud.get()) == [[], [8081]]


async def test_a_launch_on_a_bridge_of_somebody_else_publishes_nothing(cloud: Cloud) -> None:
    nics = [pb.NicSpec(network="bridge:br0")]
    request = pb.LaunchInstanceRequest(name="web-1", image="tiny", nics=nics, ports=[SSH])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.instances.LaunchInstance(request, timeout=10)
    assert pointers_of(caught.value) == {"/ports"}


async def test_nor_does_a_patch_there(cloud: Cloud) -> None:
    await cloud.launch(nics=[pb.NicSpec(network="bridge:br0")])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await patched(cloud, SSH)
    assert pointers_of(caught.value) == {"/ports"}


async def test_two_patches_with_one_key_are_one(cloud: Cloud) -> None:
    cloud.runner.default = "qc0"
    await cloud.launch()
    request = pb.UpdateInstanceRequest(
        name="web-1", ports=pb.PortList(ports=[SSH]), options=pb.MutationOptions(request_id="k")
    )
    answers = await asyncio.gather(*(cloud.instances.UpdateInstance(request, timeout=10) for _ in range(4)))
    assert len({answer.mutation.operation.id for answer in answers}) == 1
