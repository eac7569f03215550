"""A machine's life with real QEMU: prepared, started, used, stopped, deleted, and nothing left."""

import os
import uuid
from pathlib import Path

from qcontroller.runner.v1 import runner_pb2
from real_host import qemu_pids
from runner_stack import UID_BASE, RunnerStack


async def test_a_machine_lives_and_leaves_nothing(stack: RunnerStack) -> None:
    machine_id = str(uuid.uuid4())
    prepared = await stack.prepare(machine_id, stack.spec())
    assert prepared.phase == runner_pb2.MACHINE_PHASE_PREPARED

    started = await stack.start(machine_id)
    assert (started.phase, started.run_state) == (runner_pb2.MACHINE_PHASE_ACTIVE, "running")
    (pid,) = qemu_pids(machine_id)
    if os.geteuid() == 0:
        status = Path(f"/proc/{pid}/status").read_text()
        assert f"Uid:\t{UID_BASE}\t" in status

    await stack.until_agent(machine_id)
    # The seed was read: the name is the one in it.
    await stack.until(machine_id, lambda machine: machine.agent.info.hostname == "tiny-1")
    answer = await stack.execute(machine_id, "/bin/sh", "-c", "echo out; echo err >&2; exit 3")
    assert (answer.exit_code, answer.stdout, answer.stderr) == (3, b"out\n", b"err\n")
    assert "Linux version" in await stack.console(machine_id)

    steps, stopped = await stack.stop(machine_id)
    assert steps == [runner_pb2.STOP_STEP_POWERDOWN]
    assert (stopped.phase, stopped.exit.reason) == (runner_pb2.MACHINE_PHASE_EXITED, "STOPPED")
    assert qemu_pids(machine_id) == []

    await stack.delete(machine_id)
    assert (await stack.get(machine_id)).phase == runner_pb2.MACHINE_PHASE_ABSENT
    assert not (stack.state_dir / "machines" / machine_id).exists()
    leaks = await stack.host.ListHostLeaks(runner_pb2.ListHostLeaksRequest())
    assert list(leaks.leaks) == []
