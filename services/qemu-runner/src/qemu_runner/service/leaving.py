"""What the service does with what it made on the host when it is told to end.

Being restarted and being taken down look alike from here. What tells them apart is vm-host's word that it is
stopping: without it nothing is touched, since machines run on behind their guard and on their bridge.
"""

import asyncio
import logging
from typing import Final

from qemu_runner.service.machines import Machines
from qemu_runner.service.networking import Networking
from qemu_runner.service.vm_hosts import VmHosts

_LOG = logging.getLogger(__name__)

WORD_WITHIN_S: Final = 2.0
"""A stop of everything reaches vm-host within this time of reaching us."""

GONE_WITHIN_S: Final = 130.0
"""vm-host's grace period for guests, and a little more."""


class Leaving:
    """Removes guard and bridge if no machine needs them any more.

    Args:
        machines: The machines.
        vm_hosts: The vm-hosts; their links must be kept while `leave` runs.
        networking: Owner of guard and bridge.
        word_within_s: How long to wait for vm-host's word.
    """

    def __init__(
        self,
        machines: Machines,
        vm_hosts: VmHosts,
        networking: Networking,
        *,
        word_within_s: float = WORD_WITHIN_S,
    ) -> None:
        self._machines = machines
        self._vm_hosts = vm_hosts
        self._networking = networking
        self._word_within_s = word_within_s

    async def leave(self) -> None:
        """Wait for the end of machines that are being taken down; leave those that are not."""
        if self._running() and await self._is_stopping():
            try:
                async with asyncio.timeout(GONE_WITHIN_S):
                    for machine in [*self._machines, *self._machines.foreign()]:
                        await machine.ended.wait()
            except TimeoutError:
                _LOG.error("machines did not end with their vm-host")
        if self._running():
            return
        await self._networking.leave()

    def _running(self) -> bool:
        return self._machines.may_run_unrecorded or any(machine.run is not None for machine in self._machines)

    async def _is_stopping(self) -> bool:
        # One that was ended because a newer one has all machines proves nothing about these.
        links = self._vm_hosts.with_machines() or list(self._vm_hosts)
        words = [asyncio.ensure_future(link.stopping.wait()) for link in links]
        try:
            _, silent = await asyncio.wait(words, timeout=self._word_within_s)
        finally:
            for word in words:
                word.cancel()
        return not silent
