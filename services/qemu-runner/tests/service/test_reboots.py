"""Which resets of a machine are another boot of its guest."""

from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from qemu_runner.domain.record import MachineRecord, Run
from qemu_runner.service import boot as module
from qemu_runner.service.boot import Boot


class Guest:
    """A guest that prints when it is told to; `boots` is what its record counts."""

    def __init__(self) -> None:
        self.printed = 100
        self.boots = 1
        nothing: Any = SimpleNamespace(begin_anew=lambda: None)
        machine: Any = SimpleNamespace(require=lambda: SimpleNamespace(boots=1, boot_time=None))
        run: Any = SimpleNamespace(
            incarnation=1, console_offset=0, boot_offset=0, first_boot=1,
            start_time=datetime.now(UTC), kernel_start=None, phases=(), troubles=(),
        )  # fmt: skip
        self._run = cast("Run", run)
        console: Any = SimpleNamespace(log=SimpleNamespace(size=self._size))
        machines: Any = SimpleNamespace(update=self._update)
        self.boot = Boot(
            machines, machine, self._run, console, nothing, nothing, lambda: None, self._panicked
        )

    async def _size(self) -> int:
        return self.printed

    async def _panicked(self) -> None:
        return

    async def _update(self, _machine: object, change: Callable[[MachineRecord], MachineRecord]) -> object:
        record: Any = SimpleNamespace(run=self._run, booted=self._booted)
        return change(record)

    def _booted(self, _moment: datetime, _offset: int) -> object:
        self.boots += 1
        return SimpleNamespace(run=self._run)


@pytest.fixture
async def guest() -> Guest:
    return Guest()


async def test_a_firmware_that_resets_again_is_one_boot(guest: Guest) -> None:
    for _ in range(3):
        await guest.boot.begun_again(by_guest=True)
    assert guest.boots == 2


async def test_a_reset_by_the_host_is_another_boot_and_its_firmwares_is_not(guest: Guest) -> None:
    for by_guest in (True, False, True, False):
        await guest.boot.begun_again(by_guest=by_guest)
    assert guest.boots == 4


async def test_a_guest_that_has_printed_something_boots_again(guest: Guest) -> None:
    await guest.boot.begun_again(by_guest=True)
    guest.printed += 1
    await guest.boot.begun_again(by_guest=True)
    assert guest.boots == 3


async def test_a_guest_that_has_opened_a_port_boots_again(guest: Guest) -> None:
    await guest.boot.begun_again(by_guest=True)
    guest.boot.port_opened()
    await guest.boot.begun_again(by_guest=True)
    assert guest.boots == 3


async def test_a_silent_guest_that_took_its_time_boots_again(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    await guest.boot.begun_again(by_guest=True)
    monkeypatch.setattr(module, "_SAME_REBOOT_S", 0.0)
    await guest.boot.begun_again(by_guest=True)
    assert guest.boots == 3
