"""A seeded sample of the kill matrix, and proofs that its judges can say no."""

from pathlib import Path

import pytest
from fakerunner import Effect, Entry, FakeHost
from killmatrix import truth
from killmatrix.__main__ import play
from qcontroller.controller.v1 import instance_pb2 as pb
from qcontroller.runner.v1 import runner_pb2

SEED, CELLS, OPERATIONS = 20, 200, 25
ONE = "7d0c0000-0000-4000-8000-000000000001"


async def test_a_sample_of_the_matrix_holds() -> None:
    report = await play(CELLS, SEED, operations=OPERATIONS)
    assert report.total >= CELLS
    assert report.outcomes["SUCCEEDED"] > 0
    assert len({cell.fault for cell in report.cells}) > 1


def instance(state: str, operation: str = "") -> pb.Instance:
    value = pb.InstanceState.Value(f"INSTANCE_STATE_{state}")
    return pb.Instance(id=ONE, name="vm-1", status=pb.InstanceStatus(state=value, operation=operation))


def prepared_host() -> FakeHost:
    host = FakeHost()
    host.make(ONE, 1, "op-1/machine")
    host.record(ONE, runner_pb2.MachineSpec(name="vm-1"))
    host.prepare(ONE, runner_pb2.MachineSpec(name="vm-1"), 1, "op-1/machine")
    return host


@pytest.mark.parametrize("state", ["RUNNING", "PAUSED", "STARTING", "FAILED"])
def test_a_state_that_is_not_the_hosts_is_seen(state: str) -> None:
    assert truth.disagreements([instance(state)], prepared_host())


def test_a_process_that_nobody_shows_is_seen() -> None:
    host = prepared_host()
    host.spawn(ONE, 1, "op-1/power")
    assert truth.disagreements([instance("STOPPED")], host)
    assert truth.disagreements([instance("RUNNING")], host) == []


def test_an_operation_that_still_holds_an_instance_is_seen() -> None:
    assert truth.disagreements([instance("STOPPED", operation="op-1")], prepared_host())


def test_what_no_instance_claims_is_left_over() -> None:
    host = prepared_host()
    assert truth.left_over([], host, {ONE}) == [f"machine {ONE}", f"directory {ONE}", f"pin {ONE}"]
    assert truth.missing([instance("STOPPED")], FakeHost(), set())


def test_an_instance_whose_launch_was_cut_short_may_lack_its_files_until_it_is_started() -> None:
    assert truth.missing([instance("STOPPED")], FakeHost(), set(), unmade={ONE}) == []
    assert truth.missing([instance("RUNNING")], FakeHost(), set(), unmade={ONE})


def test_a_second_start_by_one_operation_is_seen_unless_the_process_was_taken_away() -> None:
    first = Entry(ONE, Effect.SPAWN, 3, "op-1/power", 1)
    second = Entry(ONE, Effect.SPAWN, 3, "op-1/power", 2)
    gone = Entry(ONE, Effect.END, 0, "", 1, "GUEST_SHUTDOWN")
    taken = Entry(ONE, Effect.END, 0, "", 1, "VM_HOST_EXITED")
    assert truth.double_actions([first, gone, second])
    assert truth.double_actions([first, taken, second]) == []


def test_a_second_reset_by_one_operation_is_seen() -> None:
    reset = Entry(ONE, Effect.RESET, 3, "op-1/reset", 1)
    assert truth.double_actions([reset, reset])


def test_an_action_under_a_lower_fence_is_seen() -> None:
    entries = [Entry(ONE, Effect.PAUSE, 4, "op-2/pause", 1), Entry(ONE, Effect.CONTINUE, 3, "op-1/resume", 1)]
    assert truth.double_actions(entries)


def test_a_host_that_is_read_again_is_what_it_was(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.raise_fence(ONE, 5)
    host.make(ONE, 5, "op-1/machine")
    host.record(ONE, runner_pb2.MachineSpec(name="vm-1", memory_mib=256))
    host.prepare(ONE, runner_pb2.MachineSpec(name="vm-1", memory_mib=256), 5, "op-1/machine")
    host.spawn(ONE, 5, "op-1/power")
    host.close()
    again = FakeHost(tmp_path)
    assert (again.machines, again.fences, again.directories) == (host.machines, host.fences, host.directories)
    assert again.used_mib == 256
    again.close()
