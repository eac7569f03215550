"""What the suite needs of a stack that it tests, be it plain processes or containers."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from qcstack.layout import StackLayout
from qcstack.processes import ProcessId


class Subject(Protocol):
    """A stack under test: its doors, its processes and its files, as the host sees them."""

    @property
    def layout(self) -> StackLayout:
        """Ports and bridge."""
        ...

    @property
    def base_url(self) -> str:
        """URL of the gateway."""
        ...

    @property
    def machines_dir(self) -> Path:
        """Where the runner keeps its machines."""
        ...

    def pending_uploads(self) -> list[str]:
        """Return what the image store keeps of uploads that are not yet, or never became, images."""
        ...

    def machine_dir(self, instance_id: str) -> Path:
        """Return where the runner keeps the machine's files."""
        ...

    def qemu_processes(self, instance_id: str) -> list[int]:
        """Return the pids of the QEMU processes that run `instance_id`."""
        ...

    def logs(self) -> dict[str, str]:
        """Return what each service has said so far."""
        ...

    def process(self, service: str) -> ProcessId:
        """Return the process that runs `service` now; wait for it where it is being restarted."""
        ...

    def starts(self, service: str) -> int:
        """Return a number that grows whenever `service` is started."""
        ...

    def kill_and_wait_restarted(self, service: str) -> None:
        """End `service` by SIGKILL and wait until the stack is ready again with a new one."""
        ...

    def frozen(self, service: str) -> AbstractContextManager[None]:
        """Hold `service` still: it neither answers nor hangs up."""
        ...

    def away(self, service: str) -> AbstractContextManager[None]:
        """End `service` by SIGKILL and keep it from running."""
        ...

    def wait_ready(self) -> None:
        """Wait until /readyz says READY."""
        ...

    def gateways(self) -> list[str]:
        """Return further addresses that the host has because of the stack, but for its bridge's."""
        ...

    def inner_doors(self) -> list[tuple[str, int]]:
        """Return where services listen for each other, as addresses and ports."""
        ...

    def keep_evidence(self, folder: Path) -> None:
        """Copy what a reader of a failed test wants to see."""
        ...
