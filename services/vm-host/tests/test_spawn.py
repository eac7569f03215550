"""Spawning: what a child is given, what it is not, and what happens on repetition."""

import os
import re
from pathlib import Path

import pytest
from vm_host_process import RefusedAnswer, VmHostProcess, handle, identity

root_only = pytest.mark.skipif(os.getuid() != 0, reason="needs root, as the container has it")


def read_all(descriptor: int) -> str:
    with os.fdopen(descriptor) as file:
        return file.read()


def test_a_child_writes_to_the_descriptor_that_was_passed(shared_vm_host: VmHostProcess) -> None:
    reader, writer = os.pipe()
    with shared_vm_host.watcher() as client:
        client.spawn("sh", "-c", "echo hello >&{fd:out}", fds={"out": writer})
        os.close(writer)
        assert read_all(reader) == "hello\n"


def test_stderr_and_stdout_go_to_the_descriptor_named_stderr(shared_vm_host: VmHostProcess) -> None:
    reader, writer = os.pipe()
    with shared_vm_host.client() as client:
        client.spawn("sh", "-c", "echo one; echo two >&2", fds={"stderr": writer})
        os.close(writer)
        assert read_all(reader) == "one\ntwo\n"


def test_a_child_holds_no_other_descriptor(shared_vm_host: VmHostProcess) -> None:
    # The pattern itself opens a directory; what is still there afterwards was inherited.
    script = 'for f in /proc/$$/fd/*; do [ -h "$f" ] && echo "${f##*/}"; done'
    reader, writer = os.pipe()
    with shared_vm_host.client() as client:
        client.spawn("sh", "-c", script, fds={"stderr": writer})
        os.close(writer)
        assert set(read_all(reader).split()) == {"0", "1", "2"}


def test_vm_host_keeps_no_descriptor_of_a_spawn(shared_vm_host: VmHostProcess) -> None:
    with shared_vm_host.watcher() as client:
        directory = Path(f"/proc/{shared_vm_host.process.pid}/fd")
        # Answered behind the end of whatever connection the test before this one has left.
        client.call("list")
        before = len(list(directory.iterdir()))
        named = handle()
        reader, writer = os.pipe()
        client.spawn("sh", "-c", ": {fd:a} {fd:b}", handle=named, fds={"a": reader, "b": writer})
        client.exit_of(named)
        os.close(reader)
        os.close(writer)
        client.call("list")
        assert len(list(directory.iterdir())) == before


def test_the_environment_is_fixed_but_for_tmpdir(shared_vm_host: VmHostProcess) -> None:
    reader, writer = os.pipe()
    with shared_vm_host.client() as client:
        client.spawn("cat", "/proc/self/environ", fds={"stderr": writer}, env={"TMPDIR": "/var/tmp"})
        os.close(writer)
        names = {entry.split("=")[0] for entry in read_all(reader).strip("\0").split("\0")}
        assert names == {"PATH", "LANG", "TMPDIR"}


@root_only
def test_a_child_has_its_uid_and_no_privilege_at_all(shared_vm_host: VmHostProcess) -> None:
    reader, writer = os.pipe()
    with shared_vm_host.client() as client:
        client.spawn("cat", "/proc/self/status", fds={"stderr": writer}, uid=20777, gid=20778, groups=[36])
        os.close(writer)
        status = dict(line.split(":\t", 1) for line in read_all(reader).splitlines())
        assert status["Uid"].split() == ["20777"] * 4
        assert status["Gid"].split() == ["20778"] * 4
        assert status["Groups"].split() == ["36"]
        assert status["NoNewPrivs"] == "1"
        sets = [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")]
        assert sets == [0] * 5


@root_only
def test_hello_tells_that_the_bounding_set_is_emptied(shared_vm_host: VmHostProcess) -> None:
    with shared_vm_host.client() as client:
        assert client.hello["root"]
        assert client.hello["boundingSetEmpty"]


@root_only
@pytest.mark.parametrize("fields", [{"uid": 0, "gid": 1}, {"uid": 1, "gid": 0}, {"uid": None, "gid": None}])
def test_no_child_runs_as_root(shared_vm_host: VmHostProcess, fields: dict[str, int | None]) -> None:
    with shared_vm_host.client() as client, pytest.raises(RefusedAnswer, match="FIELD_INVALID"):
        client.spawn("true", **fields)


def test_the_host_kills_a_child_before_the_control_plane(shared_vm_host: VmHostProcess) -> None:
    reader, writer = os.pipe()
    with shared_vm_host.client() as client:
        client.spawn("cat", "/proc/self/oom_score_adj", fds={"stderr": writer})
        os.close(writer)
        assert read_all(reader) == "500\n"


def test_repeating_a_spawn_returns_the_existing_child(shared_vm_host: VmHostProcess) -> None:
    with shared_vm_host.client() as client:
        named, who = handle(), identity()
        first = client.spawn("sleep", "1000", handle=named, **who)
        second = client.spawn("sleep", "1000", handle=named, **who)
        assert (first["created"], second["created"]) == (True, False)
        assert first["child"]["pid"] == second["child"]["pid"]
        client.call("signal", handle=named, signal="KILL")


def test_repeating_a_spawn_that_ended_starts_nothing(shared_vm_host: VmHostProcess) -> None:
    with shared_vm_host.watcher() as client:
        named = handle()
        client.spawn("true", handle=named)
        client.exit_of(named)
        again = client.spawn("true", handle=named)
        assert not again["created"]
        assert again["child"]["exit"]["code"] == 0


def test_a_second_incarnation_waits_for_the_end_of_the_first(shared_vm_host: VmHostProcess) -> None:
    with shared_vm_host.watcher() as client:
        first = handle()
        second = {**first, "incarnation": 2}
        client.spawn("sleep", "1000", handle=first)
        with pytest.raises(RefusedAnswer, match="INCARNATION_CONFLICT"):
            client.spawn("true", handle=second)
        client.call("signal", handle=first, signal="KILL")
        client.exit_of(first)
        assert client.spawn("true", handle=second)["created"]


def test_a_program_that_is_not_allowed_is_refused(shared_vm_host: VmHostProcess) -> None:
    with shared_vm_host.client() as client, pytest.raises(RefusedAnswer, match="PROGRAM_NOT_ALLOWED"):
        client.spawn("python3", "-c", "1")


def test_a_program_is_never_named_by_a_path(shared_vm_host: VmHostProcess) -> None:
    with shared_vm_host.client() as client, pytest.raises(RefusedAnswer, match="PROGRAM_NOT_ALLOWED"):
        client.spawn("/bin/sh", "-c", "true")


def test_a_descriptor_without_a_place_in_argv_is_refused(shared_vm_host: VmHostProcess) -> None:
    with shared_vm_host.client() as client, pytest.raises(RefusedAnswer, match="tap0 does not occur"):
        client.spawn("true", fds={"tap0": 0})


def test_a_place_without_a_descriptor_is_refused(shared_vm_host: VmHostProcess) -> None:
    with shared_vm_host.client() as client, pytest.raises(RefusedAnswer, match=re.escape("{fd:tap0}")):
        client.spawn("true", "{fd:tap0}")


def test_two_hundred_spawns_at_once_all_exit_0(vm_host: VmHostProcess) -> None:
    with vm_host.watcher() as watcher:
        clients = [vm_host.client() for _ in range(20)]
        wanted = []
        for client in clients:
            for _ in range(10):
                wanted.append(handle())
                client.send("spawn", handle=wanted[-1], argv=["true"], **identity())
        codes: list[int] = []
        while len(codes) < len(wanted):
            codes.append(watcher.event()["child"]["exit"]["code"])
        assert codes == [0] * 200
        for client in clients:
            assert all(client.answer()["created"] for _ in range(10))
            client.sock.close()
