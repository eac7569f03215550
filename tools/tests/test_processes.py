"""A recycled pid is never taken for ours."""

import os
import signal
import subprocess
import sys

from qcstack.processes import ProcessId


def test_a_process_is_itself_until_it_ends() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    process = ProcessId.of(child.pid)
    assert process.alive()
    assert not process.wait_gone(0.01)
    assert process.signal(signal.SIGKILL)
    assert process.wait_gone(5)
    child.wait()
    assert not process.alive()
    assert not process.signal(signal.SIGTERM)


def test_another_process_with_the_same_pid_is_not_signalled() -> None:
    forged = ProcessId(os.getpid(), ProcessId.of(os.getpid()).start_ticks + 1)
    assert not forged.alive()
    assert not forged.signal(signal.SIGKILL), "or this test would not be here"
