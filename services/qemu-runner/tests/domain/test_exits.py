"""Why a process ended, from everything that is known of it."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from qemu_runner.domain.exits import ProcessEnd, Tails, explain_end, explain_loss
from qemu_runner.domain.record import ExitReason, Run

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = Run(
    *(1, "/vm-host.sock", "start", "boot", "tcg", "pc-q35-7.2", "max", 1, 256, "7.2", "hash", NOW),
    confirmed=True,
)
CODE_0 = ProcessEnd(0, None, host_shutdown=False, time=NOW)
CODE_1 = ProcessEnd(1, None, host_shutdown=False, time=NOW)
TERMINATED = "qemu-system-x86_64: terminating on signal 15 from pid 77 (<unknown process>)\n"
KILLED = ProcessEnd(None, 9, host_shutdown=False, time=NOW)


@pytest.mark.parametrize(
    ("run", "end", "tails", "reason"),
    [
        (RUN, CODE_0, Tails(), ExitReason.GUEST_SHUTDOWN),
        (replace(RUN, ending=True), CODE_0, Tails(), ExitReason.STOPPED),
        (replace(RUN, ending=True), KILLED, Tails(), ExitReason.STOPPED),
        (RUN, KILLED, Tails(), ExitReason.QEMU_KILLED),
        (RUN, CODE_0, Tails(stderr=TERMINATED), ExitReason.QEMU_KILLED),
        (replace(RUN, shutdown_cause="host-signal"), CODE_0, Tails(), ExitReason.QEMU_KILLED),
        (replace(RUN, shutdown_cause="host-qmp-quit"), CODE_0, Tails(), ExitReason.QEMU_EXITED),
        (replace(RUN, shutdown_cause="guest-shutdown"), CODE_0, Tails(), ExitReason.GUEST_SHUTDOWN),
        (RUN, CODE_1, Tails(), ExitReason.QEMU_EXITED),
        (replace(RUN, panicked=True), CODE_1, Tails(), ExitReason.KERNEL_PANIC),
        (replace(RUN, panicked=True, ending=True), KILLED, Tails(), ExitReason.KERNEL_PANIC),
        (RUN, CODE_1, Tails(console="Kernel panic - not syncing"), ExitReason.KERNEL_PANIC),
        (RUN, CODE_0, Tails(console="Kernel panic - not syncing"), ExitReason.GUEST_SHUTDOWN),
        (RUN, replace(CODE_0, host_shutdown=True), Tails(), ExitReason.HOST_SHUTDOWN),
        (RUN, replace(CODE_0, host_shutdown=True), Tails(stderr=TERMINATED), ExitReason.HOST_SHUTDOWN),
        (RUN, replace(KILLED, host_shutdown=True), Tails(), ExitReason.HOST_SHUTDOWN),
    ],
)
def test_an_end_has_its_reason(run: Run, end: ProcessEnd, tails: Tails, reason: ExitReason) -> None:
    assert explain_end(run, end, tails).reason is reason


def test_another_boot_of_the_host_is_a_restart_of_the_host() -> None:
    assert explain_loss(RUN, "another", NOW, Tails()).reason is ExitReason.HOST_RESTARTED


def test_another_vm_host_in_the_same_boot_is_the_death_of_vm_host() -> None:
    assert explain_loss(RUN, "boot", NOW, Tails()).reason is ExitReason.VM_HOST_EXITED


def test_an_unknown_signal_is_still_told() -> None:
    assert "signal 99" in explain_end(RUN, replace(KILLED, signal=99), Tails()).message


def test_a_signal_that_qemu_obeys_is_named_like_one_that_it_does_not() -> None:
    end = explain_end(RUN, CODE_0, Tails(stderr=TERMINATED))
    assert (end.code, end.signal) == (0, 15)
    assert "SIGTERM" in end.message


def test_how_the_remains_of_a_panic_were_ended_is_not_told_as_its_end() -> None:
    end = explain_end(replace(RUN, panicked=True, ending=True), KILLED, Tails())
    assert (end.code, end.signal) == (None, None)
