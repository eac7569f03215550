"""Probes of a real guest while its runner goes and comes."""

import uuid

from qcontroller.controller.v1 import instance_pb2
from qcontroller.runner.v1 import runner_pb2
from runner_stack import RunnerStack

CONTRACT = [
    instance_pb2.Probe(agent=instance_pb2.AgentProbe()),
    instance_pb2.Probe(serial=instance_pb2.SerialProbe(match="^first thing$")),
    instance_pb2.Probe(serial=instance_pb2.SerialProbe(match="^second thing$")),
]


def holding(machine: runner_pb2.Machine) -> list[bool]:
    return [result.holds for result in machine.probes]


async def test_console_bytes_are_matched_across_a_restart_and_forgotten_with_a_reboot(
    stack: RunnerStack,
) -> None:
    machine_id = str(uuid.uuid4())
    await stack.prepare(machine_id, stack.spec(probes=CONTRACT))
    await stack.start(machine_id)
    await stack.until_agent(machine_id)
    say = "(sleep 0.3; echo; echo first thing; sleep 2; echo; echo second thing) > /dev/ttyS0 2>&1 &"
    await stack.execute(machine_id, "/bin/sh", "-c", say)
    await stack.until(machine_id, lambda machine: holding(machine) == [True, True, False])
    await stack.kill(stack.runner)
    log = stack.state_dir / "machines" / machine_id / "console.log"
    await stack.until_text(log, "second thing")

    await stack.start_runner()
    await stack.until(machine_id, lambda machine: holding(machine) == [True, True, True])
    await stack.until(machine_id, lambda machine: "ready" in {phase.name for phase in machine.boot_phases})

    await stack.execute(machine_id, "/bin/sh", "-c", "(sleep 0.3; reboot -f) >/dev/null 2>&1 &")
    again = await stack.until(machine_id, lambda machine: machine.boots > 1)
    assert holding(again) == [False, False, False]
    assert [phase.name for phase in again.boot_phases] == []
