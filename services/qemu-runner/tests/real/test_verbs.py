"""Verbs on a running machine, fences, and what is refused, with real QEMU."""

import asyncio
import uuid

import grpc
import pytest
from qcontroller.controller.v1 import host_pb2
from qcontroller.runner.v1 import runner_pb2
from runner_stack import DEADLINE_S, RunnerStack
from servicekit.rpc_errors import decode

ACTIVE = runner_pb2.MACHINE_PHASE_ACTIVE


async def refused(call: object) -> str:
    """Return the reason that a call is refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]  # a call of the stub
    return decode(caught.value).reason


async def test_pause_resume_and_reset_do_what_they_say_once(stack: RunnerStack) -> None:
    machine_id = str(uuid.uuid4())
    await stack.prepare(machine_id, stack.spec())
    await stack.start(machine_id)
    await stack.until_agent(machine_id)
    boot_id = (await stack.execute(machine_id, "/bin/cat", "/proc/sys/kernel/random/boot_id")).stdout
    for _ in range(2):
        pause = runner_pb2.PauseMachineRequest(fencing=stack.fencing(machine_id))
        assert (await stack.machines.PauseMachine(pause)).machine.run_state == "paused"
    for _ in range(2):
        resume = runner_pb2.ResumeMachineRequest(fencing=stack.fencing(machine_id))
        assert (await stack.machines.ResumeMachine(resume)).machine.run_state == "running"
    assert (await stack.start(machine_id)).incarnation == 1, "what runs is not started again"
    reset = runner_pb2.ResetMachineRequest(fencing=stack.fencing(machine_id, request_id="reset-1"))
    await stack.machines.ResetMachine(reset)
    await stack.until(machine_id, lambda machine: not machine.agent.connected)
    await stack.until_agent(machine_id)
    await stack.machines.ResetMachine(reset)
    after = (await stack.execute(machine_id, "/bin/cat", "/proc/sys/kernel/random/boot_id")).stdout
    assert after != boot_id
    await asyncio.wait_for(stack.stop(machine_id, force=True), DEADLINE_S)


async def test_a_lower_fence_is_refused_also_after_a_restart_and_a_delete(stack: RunnerStack) -> None:
    machine_id = str(uuid.uuid4())
    stack.fence = 7
    await stack.prepare(machine_id, stack.spec())
    await stack.kill(stack.runner)
    await stack.start_runner()
    stack.fence = 6
    assert await refused(stack.prepare(machine_id, stack.spec())) == "STALE_FENCE"
    stack.fence = 8
    await stack.delete(machine_id)
    stack.fence = 7
    assert await refused(stack.prepare(machine_id, stack.spec())) == "STALE_FENCE"
    assert not (stack.state_dir / "machines" / machine_id).exists()


async def test_a_look_with_a_fence_shuts_out_the_caller_before(stack: RunnerStack) -> None:
    machine_id = str(uuid.uuid4())
    await stack.machines.GetMachine(
        runner_pb2.GetMachineRequest(machine_id=machine_id, fence=5), wait_for_ready=True
    )
    assert await refused(stack.prepare(machine_id, stack.spec())) == "STALE_FENCE"


async def test_a_guest_that_ignores_the_button_is_made_to_quit(stack: RunnerStack) -> None:
    machine_id = str(uuid.uuid4())
    deaf = (
        b"#!/bin/sh\nmkdir -p /etc/acpi/PWRF\nprintf '#!/bin/sh\\n' > /etc/acpi/PWRF/00000080\n"
        b"chmod +x /etc/acpi/PWRF/00000080\n"
    )
    seed = runner_pb2.MachineSeed(hostname="deaf", user_data=deaf)
    await stack.prepare(machine_id, stack.spec(seed=seed))
    await stack.start(machine_id)
    await stack.until(machine_id, lambda machine: "cloud-init" in {p.name for p in machine.boot_phases})
    steps, stopped = await stack.stop(machine_id, grace_s=1)
    assert steps == [runner_pb2.STOP_STEP_POWERDOWN, runner_pb2.STOP_STEP_QUIT]
    assert stopped.exit.reason == "STOPPED"


async def test_a_caller_that_hangs_up_ends_its_stop_and_the_next_one_takes_over(stack: RunnerStack) -> None:
    machine_id = str(uuid.uuid4())
    await stack.prepare(machine_id, stack.spec())
    await stack.start(machine_id)
    request = runner_pb2.StopMachineRequest(fencing=stack.fencing(machine_id), grace_ms=600_000)
    call = stack.machines.StopMachine(request)
    assert (await call.read()).step == runner_pb2.STOP_STEP_POWERDOWN
    call.cancel()
    stack.fence = 2
    quiesce = runner_pb2.QuiesceMachineRequest(fencing=stack.fencing(machine_id))
    await asyncio.wait_for(stack.machines.QuiesceMachine(quiesce), 5)
    steps, stopped = await stack.stop(machine_id, force=True)
    assert stopped.phase != ACTIVE
    assert runner_pb2.STOP_STEP_POWERDOWN not in steps


async def test_programs_in_the_guest_are_refused_and_ended_with_their_reasons(stack: RunnerStack) -> None:
    machine_id = str(uuid.uuid4())
    await stack.prepare(machine_id, stack.spec())
    assert await refused(stack.execute(machine_id, "/bin/true")) == "MACHINE_STATE_CONFLICT"
    await stack.start(machine_id)
    await stack.until_agent(machine_id)
    assert await refused(stack.execute(machine_id, "/no/such")) == "GUEST_PROGRAM_NOT_FOUND"
    assert await refused(stack.execute(machine_id, "/bin/sleep", "77", timeout_s=0.3)) == "GUEST_EXEC_TIMEOUT"
    listed = await stack.execute(machine_id, "/bin/ps")
    assert b"sleep 77" not in listed.stdout
    await stack.stop(machine_id, force=True)


async def test_a_plan_says_what_a_start_would_and_changes_nothing(stack: RunnerStack) -> None:
    machine_id = str(uuid.uuid4())
    request = runner_pb2.PlanMachineRequest(machine_id=machine_id, spec=stack.spec())
    plan = await stack.machines.PlanMachine(request, wait_for_ready=True)
    assert plan.accelerator == "tcg"
    assert plan.qemu_argv[0] == "qemu-system-x86_64"
    assert machine_id in plan.qemu_argv
    assert (await stack.get(machine_id)).phase == runner_pb2.MACHINE_PHASE_ABSENT
    too_much = runner_pb2.PlanMachineRequest(machine_id=machine_id, spec=stack.spec(memory_mib=1 << 20))
    assert await refused(stack.machines.PlanMachine(too_much)) == "HOST_CAPACITY_EXHAUSTED"


async def test_the_host_tells_of_itself_and_the_doctor_of_vm_host(stack: RunnerStack) -> None:
    answer = await stack.host.GetHost(runner_pb2.GetHostRequest(), wait_for_ready=True)
    assert answer.node.accelerator == "tcg"
    assert answer.node.qemu_version
    assert [(d.name, d.up) for d in answer.dependencies] == [("vm-host", True)]
    checks = (await stack.host.RunHostDoctor(runner_pb2.RunHostDoctorRequest())).checks
    of_host = {"vm-host", "qemu", "firmware", "kvm", "uids", "disk", "clock", "engine-live-restore"}
    of_networks = {
        "tun",
        "dnsmasq",
        "bridge-network",
        "bridge-network-forward",
        "bridge-network-ports",
        "user-network",
    }
    assert of_host | of_networks <= {check.name for check in checks}
    assert [
        check.name for check in checks if check.status != host_pb2.CHECK_STATUS_PASS and not check.fix
    ] == []


async def test_one_download_serves_all_machines_of_an_image(stack: RunnerStack) -> None:
    ids = [str(uuid.uuid4()) for _ in range(4)]
    await asyncio.gather(*(stack.prepare(machine_id, stack.spec()) for machine_id in ids))
    assert stack.blobs.reads == 1
    for machine_id in ids:
        await stack.delete(machine_id)
