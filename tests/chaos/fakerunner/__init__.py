"""A runner without QEMU: the real one's contract over the same gRPC, thousands of machines in one process.

`host` is what outlives a runner (disks, processes, fences), `actions` and `servicer` are the runner, `faults`
is the script of what goes wrong, `journal` tells what was really done. It passes the contract test that the
real runner passes (`tests/chaos/test_runner_contract.py`).
"""

from fakerunner.faults import Faults, delay, hang, refuse
from fakerunner.host import FakeHost
from fakerunner.journal import Effect, Entry, Journal
from fakerunner.server import FakeRunner

__all__ = ["Effect", "Entry", "FakeHost", "FakeRunner", "Faults", "Journal", "delay", "hang", "refuse"]
