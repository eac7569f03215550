"""Removes a machine with everything that was made for it; only its fence stays, in a tombstone."""

from qemu_runner.service.actions import Emit
from qemu_runner.service.ending import Ending
from qemu_runner.service.machines import Machine, Machines
from qemu_runner.service.networking import Networking
from qemu_runner.store.image_cache import ImageCache
from qemu_runner.store.machine_files import MachineFiles


class Removal:
    """Removes machines.

    Args:
        machines: The machines.
        files: Their files.
        images: Base images, some of which nobody needs afterwards.
        networking: Their networks.
        ending: Ends their processes.
    """

    def __init__(
        self,
        machines: Machines,
        files: MachineFiles,
        images: ImageCache,
        networking: Networking,
        ending: Ending,
    ) -> None:
        self._machines = machines
        self._files = files
        self._images = images
        self._networking = networking
        self._ending = ending

    async def remove(self, machine: Machine, emit: Emit) -> None:
        """Remove the machine; its lock must be held. One that is not there is a success.

        Raises:
            VmHostUnavailableError: It has a process whose end cannot be proved now.
            RunnerError: Something on the host could not be removed; asking again goes on there.
        """
        if machine.record is not None:
            await self._ending.stop(machine, force=True, grace_s=0, emit=emit)
        else:
            await self._ending.end_unrecorded(machine, required=await self._files.exists(machine.machine_id))
        await self._networking.detach(machine.machine_id)
        # First the tombstone: at no moment is the fence nowhere.
        await self._machines.bury(machine)
        await self._files.remove(machine.machine_id)
        await self._machines.forget(machine)
        await self._images.evict()
        if self._machines.may_run_unrecorded:
            # It may run behind the guard.
            return
        async with self._networking.guard:
            await self._networking.release(self._machines.records())
