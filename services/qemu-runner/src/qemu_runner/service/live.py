"""What is seen of one running process, in memory only: it is looked up anew after each restart."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from qemu_runner.domain.observation import AgentState
from qemu_runner.guest_agent.client import GuestAgent
from qemu_runner.monitor import QmpSession
from qemu_runner.readiness.probing import Probing


@dataclass(frozen=True, slots=True)
class Frozen:
    """A guest whose filesystems were frozen: until when, and how many."""

    until: datetime
    filesystems: int


class Live:
    """A process with an open monitor.

    Attributes:
        session: Its monitor.
        incarnation: Which start of the machine.
        run_state: QEMU's, as last seen.
        agent: What is known of the guest's agent.
        guest: The way to the agent, while the guest has its port open.
        network_fault: Why the guest has lost its network; empty: it has not.
        balloon_tells: Whether the balloon has been told to gather statistics.
        frozen: Until when the guest's filesystems are held; None: they are not.
        thawed: Called when they are held no more.
        ended: Whether this process is not watched any more.
        probing: Finds out how the probes stand.
        io_error: What QEMU told of the disk that it stopped the guest for; empty while the guest runs.
    """

    def __init__(self, session: QmpSession, incarnation: int, run_state: str) -> None:
        self.session = session
        self.incarnation = incarnation
        self.run_state = run_state
        self.agent = AgentState()
        self.guest: GuestAgent | None = None
        self.network_fault = ""
        self.balloon_tells = False
        self.frozen: Frozen | None = None
        self.thawed: Callable[[], None] = _nobody
        self.ended = False
        self.probing: Probing | None = None
        self.io_error = ""


def _nobody() -> None:
    return
