"""An operator's arguments with real QEMU: it takes each allowed kind; a forbidden one stops the start."""

import asyncio
import json
import uuid

from runner_stack import DEADLINE_S, RunnerStack

ALLOWED = [
    *("-device", "i6300esb", "-action", "watchdog=reset"),
    *("-device", "qemu-xhci,p2=4", "-device", "usb-tablet", "-device", "virtio-tablet-pci"),
    *("-global", "ICH9-LPC.disable_s3=1"),
    *("-smbios", "type=1,manufacturer=Example"),
    *("-fw_cfg", "name=opt/org.example/site,string=north"),
    *("-msg", "timestamp=on", "-d", "guest_errors"),
]


async def test_a_machine_runs_with_them_and_a_forbidden_one_refuses_the_runners_start(
    stack: RunnerStack,
) -> None:
    await stack.kill(stack.runner)
    await stack.start_runner(extraQemuArgs=["-monitor", "stdio"])
    assert await asyncio.wait_for(stack.runner.wait(), DEADLINE_S) != 0
    assert "extra_qemu_args: '-monitor' is not allowed" in stack.log("qemu_runner")

    await stack.start_runner(extraQemuArgs=ALLOWED)
    machine_id = str(uuid.uuid4())
    await stack.prepare(machine_id, stack.spec())
    assert (await stack.start(machine_id)).run_state == "running"
    record = json.loads((stack.state_dir / "machines" / machine_id / "machine.json").read_text())
    assert record["run"]["extra_arguments"] == ALLOWED
    await stack.stop(machine_id, force=True)
