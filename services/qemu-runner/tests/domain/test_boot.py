"""Boot phases read from consoles, friendly and hostile."""

from datetime import UTC, datetime, timedelta

import pytest
from qemu_runner.domain.boot import BootClock, ConsoleParser, Milestone

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("line", "milestone"),
    [
        (b"[    0.000000] Linux version 6.1.0\n", Milestone("kernel", 0.0)),
        (b"qcontroller-phase: userspace uptime=1.64\r\n", Milestone("userspace", 1.64)),
        (b"qcontroller-phase: network uptime=3.5 interface=eth0\n", Milestone("network", 3.5)),
        (
            b"[    3.401000] systemd[1]: systemd 252.39 running in system mode\n",
            Milestone("userspace", 3.401),
        ),
        (b"[    2.100000] Run /init as init process\n", Milestone("userspace", 2.1)),
        (
            b"qcontroller-phase: cloud-init uptime=3.2 result=error\n",
            Milestone("cloud-init", 3.2, failed=True),
        ),
        (b"SYSLINUX 6.04 EDD Copyright (C) 1994-2015\n", Milestone("bootloader", 0.0)),
        (b"\x1b[2J  Booting `Debian GNU/Linux'\n", Milestone("bootloader", 0.0)),
        (
            b"[ 9.1] cloud-init[1]: Cloud-init v. 22.4 running 'modules:config' at Tue. Up 9.10 seconds.\n",
            Milestone("cloud-init-config", 9.1),
        ),
        (
            b"[ 78.9] cloud-init[9]: Cloud-init v. 22.4 finished at Tue. Datasource X. Up 78.50 seconds\n",
            Milestone("cloud-init", 78.5),
        ),
    ],
)
def test_a_line_of_the_console_is_a_milestone(line: bytes, milestone: Milestone) -> None:
    assert ConsoleParser().feed(line) == [milestone]


def test_a_line_that_comes_in_pieces_is_read_once() -> None:
    parser = ConsoleParser()
    assert parser.feed(b"qcontroller-phase: user") == []
    assert parser.feed(b"space uptime=1.5\n") == [Milestone("userspace", 1.5)]


@pytest.mark.parametrize(
    "line",
    [
        b"echo qcontroller-phase: agent uptime=1\n",
        b"qcontroller-phase: firmware uptime=1\n",
        b"qcontroller-phase: agent uptime=99999999999999\n",
        b"qcontroller-phase: agent uptime=-1\n",
        b"qcontroller-phase: agent uptime=nan\n",
        b"qcontroller-phase: agent uptime=999999\n",
        b"\xff\xfe\x00\n",
    ],
)
def test_what_is_no_milestone_is_passed_over(line: bytes) -> None:
    assert ConsoleParser().feed(line) == []


@pytest.mark.parametrize(
    "line", [b"Loading, please wait...\n", b"Welcome to \x1b[1mDebian GNU/Linux 12 (bookworm)\x1b[0m!\r\n"]
)
def test_the_first_program_of_a_quiet_kernel_is_dated_by_what_the_kernel_said_last(line: bytes) -> None:
    parser = ConsoleParser()
    assert parser.feed(b"Welcome to nothing!\n") == [], "no kernel has spoken yet"
    parser.feed(b"[    0.000000] Linux version 6.1.0\n[   46.751277] Key type encrypted registered\n")
    assert parser.feed(line) == [Milestone("userspace", 46.751277)]


def test_a_guest_that_prints_without_a_lines_end_costs_bounded_memory() -> None:
    parser = ConsoleParser()
    for _ in range(100):
        parser.feed(b"x" * 65_536)
    assert len(parser._pending) <= 4096


def test_phases_lie_on_the_hosts_clock_with_the_guests_distances() -> None:
    clock = BootClock(START, None, ())
    firmware, kernel = clock.reached(Milestone("userspace", 2.0), at(3.0))
    (userspace,) = clock.reached(Milestone("agent", 2.5), at(3.6))
    (agent,) = clock.agent_answered(at(4.0))
    assert (firmware.name, firmware.start_time, firmware.end_time) == ("firmware", START, at(1.0))
    assert (kernel.start_time, kernel.end_time) == (at(1.0), at(3.0))
    assert (userspace.start_time, userspace.end_time) == (at(3.0), at(3.5))
    assert (agent.start_time, agent.end_time) == (at(3.5), at(4.0))


def test_each_phase_is_told_once() -> None:
    clock = BootClock(START, None, ())
    clock.reached(Milestone("userspace", 2.0), at(3.0))
    assert clock.reached(Milestone("userspace", 9.0), at(10.0)) == []


def test_a_guest_that_prints_nothing_still_has_its_phases_when_its_agent_answers() -> None:
    clock = BootClock(START, None, ())
    assert [phase.name for phase in clock.agent_answered(at(9.0))] == ["kernel", "userspace", "agent"]


def test_a_lying_guest_cannot_place_a_phase_before_its_start_or_in_the_future() -> None:
    clock = BootClock(START, None, ())
    _, kernel = clock.reached(Milestone("userspace", 80_000.0), at(2.0))
    (network,) = clock.reached(Milestone("network", 86_000.0), at(2.5))
    assert kernel.start_time >= START
    assert network.end_time <= at(2.5)


def test_a_bootloader_that_speaks_parts_what_comes_before_the_kernel() -> None:
    clock = BootClock(START, None, ())
    (firmware,) = clock.reached(Milestone("bootloader", 0.0), at(0.4))
    bootloader, _ = clock.reached(Milestone("userspace", 2.0), at(3.0))
    assert (firmware.name, firmware.end_time) == ("firmware", at(0.4))
    assert (bootloader.name, bootloader.start_time, bootloader.end_time) == ("bootloader", at(0.4), at(1.0))


def test_a_stage_of_cloud_init_ends_where_the_next_begins() -> None:
    clock = BootClock(START, START, ())
    clock.reached(Milestone("cloud-init-local", 5.0), at(5.0))
    found = clock.reached(Milestone("cloud-init-network", 7.0), at(7.0))
    assert [(phase.name, phase.end_time) for phase in found] == [
        ("network", at(7.0)),
        ("cloud-init-local", at(7.0)),
    ]
    last = clock.reached(Milestone("cloud-init", 9.0), at(9.0))
    assert [phase.name for phase in last] == ["cloud-init-network", "cloud-init"]


def test_ready_is_the_last_phase_and_begins_where_the_one_before_ends() -> None:
    clock = BootClock(START, None, ())
    clock.agent_answered(at(4.0))
    (ready,) = clock.ready(at(6.0))
    assert (ready.name, ready.start_time, ready.end_time) == ("ready", at(4.0), at(6.0))
    assert clock.ready(at(7.0)) == []


def test_what_was_known_before_a_restart_is_not_told_again() -> None:
    before = BootClock(START, None, ())
    before.reached(Milestone("userspace", 2.0), at(3.0))
    after = BootClock(START, before.kernel_start, tuple(before.phases))
    assert after.reached(Milestone("userspace", 2.0), at(60.0)) == []
    (userspace,) = after.reached(Milestone("agent", 2.5), at(60.0))
    assert userspace.end_time == at(3.5)
