"""A machine of another architecture with real QEMU: every argument is taken, and its board begins to run."""

import uuid

from runner_stack import RunnerStack


async def test_the_emulator_takes_the_argument_list_and_the_firmware_begins(stack: RunnerStack) -> None:
    machine_id = str(uuid.uuid4())
    # Its disk is of no use to it: what is claimed ends before a guest would be loaded.
    await stack.prepare(machine_id, stack.spec(arch="aarch64"))
    started = await stack.start(machine_id)
    assert (started.run_state, started.accelerator) == ("running", "tcg")
    await stack.until_text(stack.state_dir / "machines" / machine_id / "console.log", "UEFI firmware")
    await stack.stop(machine_id, force=True)
