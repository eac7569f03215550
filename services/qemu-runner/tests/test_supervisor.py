"""The container's PID 1 with a stand-in for the runner, which tells its life in a file."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# Deaf until it has "started", as the runner is; what it is told then is written down.
_RUNNER = """
import os, signal, sys
def told(*_):
    log("told"); sys.exit(0)
def log(word):
    with open(sys.argv[1], "a") as file: file.write(f"{word} {os.getpid()}\\n")
signal.signal(signal.SIGTERM, told)
log("started")
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
while True: signal.pause()
"""
_SUPERVISOR = """
import sys
from qemu_runner.supervisor import Supervisor
sys.exit(Supervisor([sys.executable, "-c", sys.argv[1], sys.argv[2]]).run())
"""


class Life:
    """What the stand-in wrote."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def words(self) -> list[tuple[str, int]]:
        text = self._path.read_text(encoding="ascii") if self._path.exists() else ""
        return [(line.split()[0], int(line.split()[1])) for line in text.splitlines()]

    def wait_for(self, count: int) -> list[tuple[str, int]]:
        give_up = time.monotonic() + 20
        while len(words := self.words()) < count:
            assert time.monotonic() < give_up, f"only {words}"
            time.sleep(0.01)
        return words


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path / "life")


@pytest.fixture
def supervisor(tmp_path: Path, life: Life) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", _SUPERVISOR, _RUNNER, str(tmp_path / "life")])
    yield process
    process.kill()
    process.wait()
    for _, pid in life.words():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_a_killed_runner_is_started_again(supervisor: subprocess.Popen[bytes], life: Life) -> None:
    ((_, first),) = life.wait_for(1)
    os.kill(first, signal.SIGKILL)
    words = life.wait_for(2)
    assert words[1][0] == "started"
    assert words[1][1] != first
    assert supervisor.poll() is None


def test_a_signal_to_end_is_passed_on_once_and_its_status_returned(
    supervisor: subprocess.Popen[bytes], life: Life
) -> None:
    ((_, pid),) = life.wait_for(1)
    supervisor.terminate()
    assert supervisor.wait(timeout=20) == 0
    assert life.words() == [("started", pid), ("told", pid)]


def test_a_runner_killed_just_before_the_end_gets_a_successor_that_is_told(
    supervisor: subprocess.Popen[bytes], life: Life
) -> None:
    ((_, first),) = life.wait_for(1)
    os.kill(first, signal.SIGKILL)
    supervisor.terminate()
    assert supervisor.wait(timeout=20) == 0
    words = life.words()
    assert words[-1][0] == "told"
    assert words[-1][1] != first
