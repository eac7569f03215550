"""The serial console of a real guest through the gateway: viewers, a writer, tickets, ends."""

import re
from collections.abc import Iterator

import pytest
from framework.cloud import Cloud, Document
from framework.console import Console, ticket_url


@pytest.fixture(scope="module")
def guest(cloud: Cloud) -> Iterator[Document]:
    """A guest with a shell on its console, whose agent answers."""
    instance = cloud.launch_ready()
    yield instance
    cloud.delete(instance["name"])


def test_two_watch_one_writes_and_another_takes_it_by_force(cloud: Cloud, guest: Document) -> None:
    name = guest["name"]
    with (
        Console(cloud.stack, name, write="true", viewer="ada") as ada,
        Console(cloud.stack, name, viewer="eve") as eve,
    ):
        ran = ada.run("cat /proc/sys/kernel/random/boot_id")
        assert cloud.boot_id(name).encode() in ran
        eve.until_match(re.escape(ran))

        eve.type("touch /run/eve\n")
        assert eve.until("inputRefused")["reason"] == "NOT_THE_WRITER"
        eve.send(role={"take": True})
        while not (role := eve.until("role"))["refused"]:
            pass
        assert (role["holder"], role["writer"]) == ("ada", False)
        assert "since" in role

        eve.send(role={"take": True, "force": True})
        while not eve.until("role")["writer"]:
            pass
        while not (lost := ada.until("role"))["lost"]:
            pass
        assert lost["holder"] == "eve"
        eve.run("touch /run/eve")
        ada.type("touch /run/ada\n")
        assert ada.until("inputRefused")["reason"] == "NOT_THE_WRITER"
    files = cloud.exec(name, "/bin/sh", "-c", "cd /run; ls ada eve 2>/dev/null")["stdout"]
    assert files.split() == ["eve"]


def test_the_size_of_a_window_reaches_the_terminal(cloud: Cloud, guest: Document) -> None:
    name = guest["name"]
    with Console(cloud.stack, name, write="true") as ada:
        ada.send(resize={"columns": 101, "rows": 37})
        resized = ada.until("resized")
        assert resized["applied"], resized
        assert b"37 101\r\n" in ada.run("stty size")
    size = cloud.exec(name, "/bin/sh", "-c", "stty -F /dev/ttyS0 size")["stdout"]
    assert size.strip() == "37 101"


def test_a_page_gets_in_by_a_ticket_and_once(cloud: Cloud, guest: Document) -> None:
    name, origin = guest["name"], cloud.stack.base_url
    url = ticket_url(cloud.api, name)
    with Console(cloud.stack, name, url=f"{url}&write=true", origin=origin) as page:
        assert b"root" in page.run("id -un; echo root")
    with Console(cloud.stack, name, url=url, origin=origin) as again:
        problem, code, reason = again.end()
        assert (problem["status"], code, reason) == (403, 4400, "CONSOLE_TICKET_USED")
    with Console(cloud.stack, name, origin=origin) as without:
        assert without.end()[1:] == (4400, "CONSOLE_TICKET_REQUIRED")
    ticket = url.partition("ticket=")[2]
    for service, said in cloud.stack.logs().items():
        assert ticket not in said, service


def test_a_session_outlives_a_reboot(cloud: Cloud, guest: Document) -> None:
    name = guest["name"]
    with Console(cloud.stack, name, write="true") as ada:
        ada.run("true")
        ada.output = b""
        ada.type("reboot\n")
        ada.until_match(rb"Linux version(?s:.*)qcontroller-phase: agent")
        cloud.wait_ready(name)
        assert cloud.boot_id(name).encode() in ada.run("cat /proc/sys/kernel/random/boot_id")


def test_a_stop_ends_it_with_the_reason_and_a_stopped_one_cannot_be_attached_to(cloud: Cloud) -> None:
    name = cloud.launch_ready()["name"]
    with Console(cloud.stack, name) as viewer:
        viewer.until("role")
        cloud.verb(name, "stop", force=True)
        last, code, reason = viewer.end()
        assert (last["end"]["offset"], code, reason) == (viewer.offset, 1000, "STOPPED")
    with Console(cloud.stack, name) as late:
        assert late.end()[1:] == (4400, "INSTANCE_STATE_CONFLICT")
    cloud.verb(name, "start")
    with Console(cloud.stack, name) as viewer:
        viewer.until("role")
        cloud.delete(name)
        assert viewer.end()[1:] == (1000, "DELETED")
    with Console(cloud.stack, name) as late:
        assert late.end()[1:] == (4400, "INSTANCE_NOT_FOUND")


def test_a_killed_runner_costs_a_reconnect_and_no_byte(cloud: Cloud, guest: Document) -> None:
    name = guest["name"]
    cloud.wait_ready(name)
    with Console(cloud.stack, name, write="true") as ada:
        ada.type("i=0; while [ $i -lt 3000 ]; do echo count-$i; i=$((i+1)); done\n")
        ada.until_match(rb"count-10\r\n")
        cloud.stack.kill_and_wait_restarted("qemu-runner")
        _, code, reason = ada.end()
        assert (code, reason) == (1013, "RUNNER_UNAVAILABLE")
    with Console(cloud.stack, name, offset=ada.offset) as back:
        back.output = ada.output
        back.until_match(rb"count-2999\r\n")
    counts = [int(number) for number in re.findall(rb"count-(\d+)\r\n", back.output)]
    assert counts == list(range(3000))
