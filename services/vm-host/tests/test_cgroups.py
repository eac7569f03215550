"""Each machine has a cgroup of its own where one can be made, and none is left."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from vm_host.cgroups import Cgroups, _own_cgroup
from vm_host_process import VmHostProcess, handle, running_vm_host, wait_until_gone


@pytest.fixture
def root(state_dir: Path) -> Iterator[Path]:
    """The directory of the vm-host in `state_dir`; the test is skipped where there can be none."""
    cgroups = Cgroups.of(state_dir / "vm-host.sock")
    if cgroups.root is None:
        pytest.skip("this host lets us make no cgroup (v2)")
    yield cgroups.root
    Cgroups(cgroups.root).close()


def processes(path: Path) -> list[int]:
    return [int(word) for word in (path / "cgroup.procs").read_text().split()]


def test_the_children_of_a_machine_are_in_its_cgroup_and_nobody_else_is(
    root: Path, vm_host: VmHostProcess
) -> None:
    named = handle()
    with vm_host.watcher() as client:
        qemu = client.spawn("sleep", "1000", handle=named)["child"]
        passt = client.spawn("sleep", "1000", handle={**named, "role": "passt"})["child"]
        other = client.spawn("sleep", "1000")["child"]
        assert sorted(processes(root / named["machineId"])) == sorted([qemu["pid"], passt["pid"]])
        assert processes(root / other["handle"]["machineId"]) == [other["pid"]]


def test_a_cgroup_goes_with_the_last_child_of_its_machine(root: Path, vm_host: VmHostProcess) -> None:
    named = handle()
    passt = {**named, "role": "passt"}
    with vm_host.watcher() as client:
        client.spawn("sleep", "1000", handle=passt)
        client.spawn("sleep", "1000", handle=named)
        client.call("signal", handle=passt, signal="KILL")
        client.exit_of(passt)
        assert (root / named["machineId"]).is_dir()
        client.call("signal", handle=named, signal="KILL")
        client.exit_of(named)
        assert not (root / named["machineId"]).exists()


def test_a_stopped_vm_host_leaves_no_cgroup(root: Path, vm_host: VmHostProcess) -> None:
    with vm_host.client() as client:
        client.spawn("sleep", "1000")
        vm_host.stop()
    assert not root.exists()


def test_what_a_killed_vm_host_left_is_removed_by_the_next(root: Path, state_dir: Path) -> None:
    named = handle()
    with running_vm_host(state_dir) as first:
        with first.client() as client:
            pidfd = os.pidfd_open(client.spawn("sleep", "1000", handle=named)["child"]["pid"])
        first.stop(signal.SIGKILL)
        assert wait_until_gone(pidfd)
        os.close(pidfd)
        assert (root / named["machineId"]).is_dir()
        with running_vm_host(state_dir):
            assert not (root / named["machineId"]).exists()


def test_a_host_that_lets_nobody_make_cgroups_has_none(tmp_path: Path) -> None:
    cgroups = Cgroups(tmp_path / "missing" / "qcontroller")
    assert cgroups.root is None
    cgroups.enter("a-machine", 1)
    cgroups.leave("a-machine")
    assert list(tmp_path.iterdir()) == []


def test_without_the_unified_hierarchy_there_is_no_own_cgroup(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("4:memory:/user\n")
    (tmp_path / "mountinfo").write_text("41 31 0:38 / /cg rw - cgroup cgroup rw,memory\n")
    assert _own_cgroup(tmp_path) is None


def test_the_own_cgroup_is_found_below_the_mount_of_the_unified_hierarchy(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("4:memory:/user\n0::/user/one\n")
    (tmp_path / "mountinfo").write_text("41 31 0:38 / /cg/unified rw,relatime - cgroup2 cgroup2 rw\n")
    assert _own_cgroup(tmp_path) == Path("/cg/unified/user/one")
