"""What is seen of one running process, in memory only: it is looked up anew after each restart."""

from qemu_runner.domain.observation import AgentState
from qemu_runner.guest_agent.client import GuestAgent
from qemu_runner.monitor import QmpSession
from qemu_runner.readiness.probing import Probing


class Live:
    """A process with an open monitor.

    Attributes:
        session: Its monitor.
        incarnation: Which start of the machine.
        run_state: QEMU's, as last seen.
        agent: What is known of the guest's agent.
        guest: The way to the agent, while the guest has its port open.
        network_fault: Why the guest has lost its network; empty: it has not.
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
        self.probing: Probing | None = None
        self.io_error = ""
