"""Checks the host for what keeps machines from starting, or makes them less than they could be."""

import asyncio
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from qemu_runner.domain.accelerator import KVM
from qemu_runner.domain.arch import ARCHES
from qemu_runner.errors import VmHostUnavailableError
from qemu_runner.ports import QemuOffer
from qemu_runner.service.hardware import accelerator_states, find_offer
from qemu_runner.service.host import HOST_ARCH
from qemu_runner.service.host_checks import host_checks
from qemu_runner.service.networking import Networking
from qemu_runner.service.vm_host_link import VmHostLink
from qemu_runner.service.vm_hosts import VmHosts
from qemu_runner.user_network import Check, CheckStatus

_GIB: Final = 2**30
_DISK_WARN_BYTES: Final = 5 * _GIB
_DISK_FAIL_BYTES: Final = _GIB // 2


class Doctor:
    """Examines the host.

    Args:
        state_dir: The runner's state directory.
        networking: The networks.
        vm_hosts: All vm-hosts.
    """

    def __init__(self, state_dir: Path, networking: Networking, vm_hosts: VmHosts) -> None:
        self._state_dir = state_dir
        self._networking = networking
        self._vm_hosts = vm_hosts

    async def examine(self) -> list[Check]:
        """Return all checks; a check never raises for what it exists to report."""
        disk = await asyncio.to_thread(shutil.disk_usage, self._state_dir)
        for link in self._vm_hosts:
            with suppress(VmHostUnavailableError):  # which is what its check will say
                await link.current_hello()
        return [
            *(self._vm_host(link) for link in self._vm_hosts.needed()),
            self._qemu(),
            firmware_check(self._offer()),
            self._kvm(),
            self._uids(),
            _disk(disk.free, self._state_dir),
            *await self._networking.checks(),
            *await host_checks(),
        ]

    def _vm_host(self, link: VmHostLink) -> Check:
        hello = link.hello
        if hello is None:
            return Check("vm-host", CheckStatus.FAIL, link.detail, "start vm-host; see its log.")
        if hello.stopping:
            return Check(
                "vm-host", CheckStatus.FAIL, "vm-host is stopping.", "start it again when it has ended."
            )
        if hello.root and not hello.bounding_set_empty:
            return Check(
                "vm-host",
                CheckStatus.WARN,
                "its children keep capabilities in their bounding set.",
                "give vm-host the capability SETPCAP.",
            )
        return Check("vm-host", CheckStatus.PASS, f"generation {hello.generation!r} answers.")

    def _offer(self) -> QemuOffer | None:
        hello = self._vm_hosts.newest().hello
        return None if hello is None else find_offer(hello, ARCHES[HOST_ARCH])

    def _qemu(self) -> Check:
        arch = ARCHES[HOST_ARCH]
        offer = self._offer()
        fix = f"install {arch.program} (Debian: {arch.package}) where vm-host runs."
        if offer is None:
            return Check("qemu", CheckStatus.FAIL, "no vm-host offers QEMU.", fix)
        if offer.error:
            return Check("qemu", CheckStatus.FAIL, offer.error, fix)
        return Check("qemu", CheckStatus.PASS, f"{offer.program} {offer.version}.")

    def _kvm(self) -> Check:
        offer = self._offer()
        states = () if offer is None else accelerator_states(offer)
        kvm = next((state for state in states if state.name == KVM), None)
        if kvm is not None and kvm.usable:
            return Check("kvm", CheckStatus.PASS, "KVM is usable.")
        reason = "no vm-host told of KVM." if kvm is None else kvm.reason
        return Check(
            "kvm",
            CheckStatus.WARN,
            f"machines are emulated: {reason}",
            "use a host with hardware virtualisation (nested, if it is a VM) and give vm-host /dev/kvm.",
        )

    def _uids(self) -> Check:
        hello = self._vm_hosts.newest().hello
        if os.geteuid() == 0 and (hello is None or hello.root):
            return Check("uids", CheckStatus.PASS, "each machine has a uid of its own.")
        return Check(
            "uids",
            CheckStatus.WARN,
            "without root all machines run under the uid of whoever started the stack.",
            "start runner and vm-host as root to keep machines apart.",
        )


def firmware_check(offer: QemuOffer | None) -> Check:
    """Report whether QEMU finds what it needs before the guest begins."""
    name = "firmware"
    if offer is None or offer.error:
        return Check(name, CheckStatus.FAIL, "there is no QEMU to ask.", "see the check `qemu`.")
    if offer.missing_firmware:
        return Check(
            name,
            CheckStatus.FAIL,
            f"{offer.program} does not find {', '.join(offer.missing_firmware)}: no machine starts.",
            "install its firmware (Debian: seabios) where vm-host runs.",
        )
    return Check(name, CheckStatus.PASS, f"{offer.program} finds its firmware.")


def _disk(free_bytes: int, path: Path) -> Check:
    detail = f"{free_bytes / _GIB:.1f} GiB are free in {path}."
    if free_bytes < _DISK_FAIL_BYTES:
        return Check("disk", CheckStatus.FAIL, detail, "free space there, or move the state directory.")
    if free_bytes < _DISK_WARN_BYTES:
        return Check("disk", CheckStatus.WARN, detail, "free space there, or move the state directory.")
    return Check("disk", CheckStatus.PASS, detail)
