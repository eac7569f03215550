"""What is refused, with which reason, and that nothing half-made stays."""

import asyncio
from typing import Any

import grpc
import pytest
from controller_fakes import DIGEST, Cloud, pointers_of, reason_of, refusal
from qcontroller.controller.v1 import instance_pb2 as pb
from qcontroller.controller.v1 import operation_pb2


async def refused(cloud: Cloud, **fields: Any) -> grpc.aio.AioRpcError:
    request = pb.LaunchInstanceRequest(**{"name": "web-1", "image": "tiny", **fields})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.instances.LaunchInstance(request, timeout=10)
    listed = await cloud.instances.ListInstances(pb.ListInstancesRequest(), timeout=10)
    assert [instance.name for instance in listed.instances] == []
    operations = await cloud.operations.ListOperations(operation_pb2.ListOperationsRequest(), timeout=10)
    assert list(operations.operations) == []
    return caught.value


@pytest.mark.parametrize(
    ("fields", "pointers"),
    [
        ({"name": "../x"}, {"/name"}),
        ({"name": "Upper"}, {"/name"}),
        ({"name": "a" * 64}, {"/name"}),
        ({"vm": pb.VmSpec(memory="12X")}, {"/vm/memory"}),
        ({"vm": pb.VmSpec(memory="999999T")}, {"/vm/memory"}),
        ({"vm": pb.VmSpec(cpus=100_000)}, {"/vm/cpus"}),
        ({"vm": pb.VmSpec(disk="1M")}, {"/vm/disk"}),
        ({"name": "../x", "vm": pb.VmSpec(memory="x", disk="1M")}, {"/name", "/vm/memory", "/vm/disk"}),
        ({"nics": [pb.NicSpec(network="bridge:")]}, {"/nics/0/network"}),
        ({"nics": [pb.NicSpec(network="bridge:..")]}, {"/nics/0/network"}),
        ({"nics": [pb.NicSpec(network="bridge:averyverylongname")]}, {"/nics/0/network"}),
        ({"nics": [pb.NicSpec(network="qc1")]}, {"/nics/0/network"}),
        ({"nics": [pb.NicSpec(mac="01:00:00:00:00:01")]}, {"/nics/0/mac"}),
        ({"nics": [pb.NicSpec(address="10.76.0")]}, {"/nics/0/address"}),
        ({"nics": [pb.NicSpec(address="fd00::1")]}, {"/nics/0/address"}),
        ({"nics": [pb.NicSpec(network="user", address="10.76.0.9")]}, {"/nics/0/address"}),
        ({"nics": [pb.NicSpec(network="bridge:br0", address="10.76.0.9")]}, {"/nics/0/address"}),
        ({"nics": [pb.NicSpec(address="10.76.0.9"), pb.NicSpec(address="10.76.0.9")]}, {"/nics/1/address"}),
        ({"nics": [pb.NicSpec(network="none")], "ports": [pb.PortMapping(host=1, guest=1)]}, {"/ports"}),
        ({"ports": [pb.PortMapping(host=0, guest=70_000)]}, {"/ports/0/host", "/ports/0/guest"}),
        ({"arch": "aarch64"}, {"/arch"}),
        (
            {"readiness": pb.Readiness(all=[pb.Probe()], deadline="soon")},
            {"/readiness/all/0", "/readiness/deadline"},
        ),
        (
            {
                "readiness": pb.Readiness(
                    all=[
                        pb.Probe(tcp=pb.TcpProbe(port=70_000)),
                        pb.Probe(http=pb.HttpProbe(path="/x y", status=99)),
                        pb.Probe(cloud_init="soon"),
                        pb.Probe(serial=pb.SerialProbe()),
                        pb.Probe(exec=pb.ExecProbe(argv=["/bin/\0"], exit_code=256)),
                    ]
                )
            },
            {
                "/readiness/all/0/tcp/port",
                "/readiness/all/1/http/path",
                "/readiness/all/1/http/status",
                "/readiness/all/2/cloudInit",
                "/readiness/all/3/serial/match",
                "/readiness/all/4/exec/argv",
                "/readiness/all/4/exec/exitCode",
            },
        ),
        ({"readiness": pb.Readiness(all=[pb.Probe(agent=pb.AgentProbe())] * 17)}, {"/readiness/all"}),
        (
            {
                "nics": [pb.NicSpec(network="none")],
                "readiness": pb.Readiness(all=[pb.Probe(tcp=pb.TcpProbe(port=22))]),
            },
            {"/readiness/all/0/tcp"},
        ),
    ],
)
async def test_faults_are_all_named(cloud: Cloud, fields: dict[str, Any], pointers: set[str]) -> None:
    error = await refused(cloud, **fields)
    assert reason_of(error)[0] == "FIELD_INVALID"
    assert pointers_of(error) == pointers


async def test_an_unknown_image_is_refused_at_once(cloud: Cloud) -> None:
    assert reason_of(await refused(cloud, image="none"))[0] == "IMAGE_NOT_FOUND"


async def test_another_digest_is_refused_at_once(cloud: Cloud) -> None:
    error = await refused(cloud, image_digest="sha256:" + "0" * 64)
    assert reason_of(error) == (
        "IMAGE_DIGEST_MISMATCH",
        {"image": "tiny", "expected": "sha256:" + "0" * 64, "actual": DIGEST},
    )


async def test_a_static_address_is_the_runners_to_refuse_or_to_give(cloud: Cloud) -> None:
    cloud.runner.faults["plan"] = [refusal("ADDRESS_IN_USE", "FAILED_PRECONDITION")]
    nics = [pb.NicSpec(address="10.76.0.9")]
    assert reason_of(await refused(cloud, nics=nics))[0] == "ADDRESS_IN_USE"
    instance = await cloud.launch(nics=nics, start=False)
    assert [nic.address for nic in cloud.runner.specs[instance.id].nics] == ["10.76.0.9"]


async def test_what_the_runner_would_refuse_later_is_refused_at_once(cloud: Cloud) -> None:
    cloud.runner.faults["plan"] = [refusal("HOST_CAPACITY_EXHAUSTED", "RESOURCE_EXHAUSTED")]
    error = await refused(cloud)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason_of(error)[0] == "HOST_CAPACITY_EXHAUSTED"


async def test_peers_that_are_away_are_named(cloud: Cloud) -> None:
    cloud.store.away = True
    assert reason_of(await refused(cloud))[0] == "IMAGE_STORE_UNAVAILABLE"
    cloud.store.away = False
    cloud.runner.break_off()
    assert reason_of(await refused(cloud))[0] == "RUNNER_UNAVAILABLE"


async def test_a_second_launch_of_a_name_is_refused(cloud: Cloud) -> None:
    await cloud.launch(start=False)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.instances.LaunchInstance(pb.LaunchInstanceRequest(name="web-1", image="tiny"), timeout=10)
    assert reason_of(caught.value)[0] == "INSTANCE_ALREADY_EXISTS"


async def test_validate_only_tells_the_plan_and_changes_nothing(cloud: Cloud) -> None:
    request = pb.LaunchInstanceRequest(name="web-1", image="tiny", start=True, validate_only=True)
    plan = (await cloud.instances.LaunchInstance(request, timeout=10)).plan
    assert plan.qemu_argv[0] == "qemu-system-x86_64"
    assert list(plan.steps) == ["image", "machine", "power", "running"]
    assert plan.instance.status.nics[0].network == "user"
    with pytest.raises(grpc.aio.AioRpcError):
        await cloud.get()


async def test_start_of_a_paused_one_names_resume(cloud: Cloud) -> None:
    await cloud.launch()
    await cloud.verb("Pause")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.ask("Start")
    reason, metadata = reason_of(caught.value)
    assert reason == "INSTANCE_STATE_CONFLICT"
    assert "resume" in metadata["allowed"].split(",")


async def test_what_already_holds_is_a_success_without_an_operation(cloud: Cloud) -> None:
    await cloud.launch()
    for verb in ("Start", "Resume"):
        assert not (await cloud.ask(verb)).HasField("operation")
    await cloud.verb("Stop")
    assert not (await cloud.ask("Stop")).HasField("operation")


async def test_a_stale_etag_goes_before_faults_and_state(cloud: Cloud) -> None:
    await cloud.launch()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.ask("Stop", timeout="soon", options=pb.MutationOptions(if_match="99-1"))
    assert reason_of(caught.value)[0] == "PRECONDITION_FAILED"


async def test_faults_go_before_the_operation_in_progress(cloud: Cloud) -> None:
    await cloud.launch()
    reached = cloud.runner.at("pause")
    pausing = await cloud.ask("Pause")
    await asyncio.wait_for(reached.wait(), 10)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.ask("Stop", timeout="soon")
    assert pointers_of(caught.value) == {"/timeout"}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.ask("Stop")
    assert reason_of(caught.value) == (
        "OPERATION_IN_PROGRESS",
        {"operation": f"/v1/operations/{pausing.operation.id}"},
    )
    cloud.runner.gates.pop("pause").set()
    await cloud.done(pausing)


async def test_a_key_is_bound_to_its_request(cloud: Cloud) -> None:
    await cloud.launch(options=pb.MutationOptions(request_id="k"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.launch(labels={"a": "b"}, options=pb.MutationOptions(request_id="k"))
    assert reason_of(caught.value)[0] == "IDEMPOTENCY_KEY_REUSED"


@pytest.mark.parametrize(
    ("fields", "pointers"),
    [
        ({"argv": []}, {"/argv"}),
        ({"argv": ["", "a"]}, {"/argv"}),
        ({"argv": ["echo", "a\0b"], "env": {"B\0": "c"}}, {"/argv/1", "/env/B\0"}),
        ({"argv": ["env"], "env": {"": "x", "A=B": "c", "C": "\0"}}, {"/env/", "/env/A=B", "/env/C"}),
        ({"argv": ["sleep"], "timeout": "11m"}, {"/timeout"}),
    ],
)
async def test_a_program_that_the_guest_would_read_otherwise_is_refused(
    cloud: Cloud, fields: dict[str, Any], pointers: set[str]
) -> None:
    await cloud.launch()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.instances.ExecInstance(pb.ExecInstanceRequest(name="web-1", **fields), timeout=10)
    assert reason_of(caught.value)[0] == "FIELD_INVALID"
    assert pointers_of(caught.value) == pointers
