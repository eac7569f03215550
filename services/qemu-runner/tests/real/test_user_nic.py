"""A machine on the user network, in network namespaces of the test's own."""

import os
import signal
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address
from pathlib import Path

import grpc
import pytest
from qcontroller.controller.v1 import instance_pb2
from qcontroller.runner.v1 import runner_pb2
from real_host import children_of, qemu_pids
from runner_stack import RunnerStack, running_stack
from user_network_world import World, made_world

pytestmark = pytest.mark.netns

LOOPBACK = IPv4Address("127.0.0.1")
MAC = "52:54:00:12:34:56"
PORT = instance_pb2.PortMapping(host=2222, guest=7777, protocol="tcp")
NIC = runner_pb2.MachineNic(network="user", mac=MAC, ports=[PORT])


@pytest.fixture(name="world")
def _world() -> Iterator[World]:
    with made_world() as world:
        yield world


@pytest.fixture(name="netted")
async def _netted(world: World) -> AsyncIterator[RunnerStack]:
    with tempfile.TemporaryDirectory(prefix="qc-run-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        async with running_stack(directory, enter=world.enter(world.host)) as stack:
            yield stack


async def test_a_guest_on_the_user_network_is_reached_by_its_published_port_alone(
    netted: RunnerStack, world: World
) -> None:
    stack = netted
    machine_id = str(uuid.uuid4())
    await stack.prepare(machine_id, stack.spec(nics=[NIC]))
    assert (await stack.start(machine_id)).run_state == "running"
    (nic,) = (await stack.until_agent(machine_id)).nics
    assert [(one.address, one.source) for one in nic.addresses] == [("10.77.0.16", "user")]
    own = await stack.execute(
        machine_id, "/bin/sh", "-c", "until ip -4 addr show eth0 | grep -w 10.77.0.16; do usleep 100000; done"
    )
    assert own.exit_code == 0
    script = "echo from-the-guest | nc -l -p 7777 >/dev/null 2>&1 &"
    listening = "until grep -q :1E61 /proc/net/tcp*; do :; done"
    await stack.execute(machine_id, "/bin/sh", "-c", f"({script}); {listening}")
    assert "qcontroller" in world.run("nft", "list", "tables")
    with world.connect(world.host, LOOPBACK, PORT.host) as client:
        client.sendall(b"hello\n")

    await stack.stop(machine_id, force=True)
    await stack.delete(machine_id)
    assert children_of(stack.vm_host.pid, "passt") == []
    assert "qcontroller" not in world.run("nft", "list", "tables")
    leaks = await stack.host.ListHostLeaks(runner_pb2.ListHostLeaksRequest())
    assert list(leaks.leaks) == []


async def test_a_dead_passt_is_a_fault_of_the_network_and_not_of_the_machine(netted: RunnerStack) -> None:
    stack = netted
    machine_id = str(uuid.uuid4())
    await stack.prepare(machine_id, stack.spec(nics=[NIC]))
    await stack.start(machine_id)
    (pid,) = children_of(stack.vm_host.pid, "passt")
    os.kill(pid, signal.SIGKILL)
    seen = await stack.until(machine_id, lambda machine: machine.network_fault != "")
    assert (seen.network_fault, seen.run_state) == ("PASST_EXITED", "running")
    await stack.kill(stack.runner)
    await stack.start_runner()
    seen = await stack.until(machine_id, lambda machine: machine.network_fault != "")
    assert len(qemu_pids(machine_id)) == 1
    await stack.stop(machine_id, force=True)


async def test_a_port_that_another_machine_reserved_is_refused(netted: RunnerStack) -> None:
    stack = netted
    await stack.prepare(str(uuid.uuid4()), stack.spec(nics=[NIC]))
    with pytest.raises(grpc.aio.AioRpcError, match="2222"):
        await stack.prepare(str(uuid.uuid4()), stack.spec(nics=[NIC]))


async def test_slirp_is_refused_beside_a_vm_host_that_shares_the_runners_network(netted: RunnerStack) -> None:
    stack = netted
    await stack.kill(stack.runner)
    await stack.start_runner(userBackend="slirp")
    nic = runner_pb2.MachineNic(network="user", mac=MAC)
    with pytest.raises(grpc.aio.AioRpcError, match="loopback"):
        await stack.prepare(str(uuid.uuid4()), stack.spec(nics=[nic]))
