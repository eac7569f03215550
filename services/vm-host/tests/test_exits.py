"""Exits: kept until acknowledged, told to everybody who watches."""

import pytest
from vm_host_process import RefusedAnswer, VmHostProcess, handle


def test_an_exit_is_repeated_on_every_connection_until_it_is_acknowledged(vm_host: VmHostProcess) -> None:
    named = handle()
    with vm_host.watcher() as first:
        first.spawn("sh", "-c", "exit 7", handle=named)
        assert first.exit_of(named)["code"] == 7
    with vm_host.watcher() as second:
        assert second.exit_of(named)["code"] == 7
        second.call("ack", handle=named)
    with vm_host.watcher() as third:
        assert third.call("list")["children"] == []
        assert third.events == []


def test_a_signal_and_a_code_are_told_apart(vm_host: VmHostProcess) -> None:
    with vm_host.watcher() as client:
        named = handle()
        client.spawn("sleep", "1000", handle=named)
        client.call("signal", handle=named, signal="TERM")
        ended = client.exit_of(named)
        assert (ended["code"], ended["signal"], ended["reason"]) == (None, 15, "EXITED")


def test_every_watcher_is_told(vm_host: VmHostProcess) -> None:
    with vm_host.watcher() as one, vm_host.watcher() as two:
        named = handle()
        one.spawn("true", handle=named)
        assert one.exit_of(named) == two.exit_of(named)


def test_a_living_child_cannot_be_acknowledged(vm_host: VmHostProcess) -> None:
    with vm_host.watcher() as client:
        named = handle()
        client.spawn("sleep", "1000", handle=named)
        with pytest.raises(RefusedAnswer, match="HANDLE_RUNNING"):
            client.call("ack", handle=named)
        client.call("signal", handle=named, signal="KILL")
        client.exit_of(named)
        client.call("ack", handle=named)
        client.call("ack", handle=named)


def test_a_signal_needs_a_living_child(vm_host: VmHostProcess) -> None:
    with vm_host.watcher() as client:
        named = handle()
        with pytest.raises(RefusedAnswer, match="HANDLE_UNKNOWN"):
            client.call("signal", handle=named, signal="KILL")
        client.spawn("true", handle=named)
        client.exit_of(named)
        with pytest.raises(RefusedAnswer, match="HANDLE_EXITED"):
            client.call("signal", handle=named, signal="KILL")


def test_a_leftover_passt_is_ended_after_its_qemu(vm_host: VmHostProcess) -> None:
    with vm_host.watcher() as client:
        qemu = handle()
        passt = {**qemu, "role": "passt"}
        client.spawn("sleep", "1000", handle=passt)
        client.spawn("sleep", "1000", handle=qemu)
        client.call("signal", handle=qemu, signal="KILL")
        assert client.exit_of(qemu)["signal"] == 9
        assert client.exit_of(passt)["signal"] == 9


def test_a_list_longer_than_a_message_comes_in_pages(vm_host: VmHostProcess) -> None:
    with vm_host.watcher() as client:
        named = [handle() for _ in range(300)]
        for one in named:
            client.spawn("true", handle=one)
        listed: list[str] = []
        after: str | None = ""
        while after is not None:
            page = client.call("list", after=after)
            listed += [child["handle"]["machineId"] for child in page["children"]]
            after = page["next"]
        assert listed == sorted(one["machineId"] for one in named)
