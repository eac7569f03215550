"""All vm-hosts of this host: which one takes new machines, and which only keep those that they have.

QEMU is upgraded by starting a second vm-host beside the first: machines that run stay where they are, and
whatever starts from then on does so on the newest.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from qemu_runner.domain.arch import ARCHES
from qemu_runner.domain.record import MachineRecord, Run
from qemu_runner.errors import VmHostUnavailableError
from qemu_runner.service.hardware import find_offer
from qemu_runner.service.vm_host_link import VmHostLink

_ARCH = "x86_64"


class VmHostState(StrEnum):
    """What a vm-host is good for."""

    READY = "READY"
    DRAINING = "DRAINING"
    UNREACHABLE = "UNREACHABLE"


@dataclass(frozen=True, slots=True)
class VmHostView:
    """A vm-host as it is shown.

    Attributes:
        name: Of its socket.
        generation: Label that its settings give it; empty while it is away.
        qemu_version: Empty where it is not known.
        state: Whether it takes machines.
        machines: How many run on it.
        since: Since when it has been there, or away.
        message: Why it takes none; empty if it does.
    """

    name: str
    generation: str
    qemu_version: str
    state: VmHostState
    machines: int
    since: datetime
    message: str


class VmHosts:
    """The links, in the order of the settings.

    Args:
        links: All links.
        records: Returns the records of all machines.
    """

    def __init__(self, links: Sequence[VmHostLink], records: Callable[[], Iterable[MachineRecord]]) -> None:
        self._links = links
        self._records = records

    def __iter__(self) -> Iterator[VmHostLink]:
        """Iterate over all links."""
        return iter(self._links)

    def newest(self) -> VmHostLink:
        """Return the one that new machines go to; it need not answer.

        The highest number among the generations decides, then which was started last: one that was only
        started again does not take the place of a newer one.
        """
        there = [link for link in self._links if link.hello is not None and not link.hello.stopping]
        return max(there or self._links, key=self._age)

    def of(self, run: Run) -> VmHostLink:
        """Return the one that a machine was started by.

        Raises:
            VmHostUnavailableError: It is not among the settings any more.
        """
        for link in self._links:
            if str(link.socket_path) == run.vm_host:
                return link
        raise VmHostUnavailableError(f"{run.vm_host} is not among the settings any more")

    def with_machines(self) -> list[VmHostLink]:
        """Return those that machines run on."""
        return [link for link in self._links if self._machines_on(link)]

    def needed(self) -> list[VmHostLink]:
        """Return all but those that are away, have no machine, and are not missed since another is there."""
        newest = self.newest()
        return [
            link
            for link in self._links
            if link is newest or link.hello is not None or self._machines_on(link)
        ]

    def views(self) -> tuple[VmHostView, ...]:
        """Return those that are needed as they are shown, oldest first."""
        return tuple(self._view(link) for link in sorted(self.needed(), key=self._age))

    def name(self, link: VmHostLink) -> str:
        """Return the name under which a vm-host is reported."""
        return "vm-host" if len(self._links) == 1 else f"vm-host {link.socket_path.stem}"

    def _view(self, link: VmHostLink) -> VmHostView:
        hello = link.hello
        machines = self._machines_on(link)
        name = link.socket_path.stem
        if hello is None:
            return VmHostView(name, "", "", VmHostState.UNREACHABLE, machines, link.since, link.detail)
        offer = find_offer(hello, ARCHES[_ARCH])
        state, message = VmHostState.READY, ""
        if hello.stopping:
            state, message = VmHostState.DRAINING, "It is stopping."
        elif link is not self.newest():
            state, message = VmHostState.DRAINING, "A newer one takes new machines."
        version = "" if offer is None else offer.version
        return VmHostView(name, hello.generation, version, state, machines, link.since, message)

    def _machines_on(self, link: VmHostLink) -> int:
        path = str(link.socket_path)
        return sum(record.run is not None and record.run.vm_host == path for record in self._records())

    def _age(self, link: VmHostLink) -> tuple[int, float, int]:
        label = "" if link.hello is None else link.hello.generation
        number = int(label) if label.isascii() and label.isdigit() else -1
        return number, link.started_at, self._links.index(link)
