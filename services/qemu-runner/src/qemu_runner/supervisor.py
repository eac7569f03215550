"""PID 1 of the runner's container: keeps the runner running, and cleans up after a killed one.

Standard library only, so that a broken dependency of the runner cannot break it. It knows one thing about the
runner: told to end by SIGTERM, the runner removes what no machine needs any more (`service/leaving.py`). A
runner that was killed could not do that; one more is started then, only to be told.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final

_FIRST_BACKOFF_S: Final = 0.2
_LAST_BACKOFF_S: Final = 5.0
# A runner that ran this long did start: its next restart is quick again.
_SETTLED_S: Final = 10.0
_END: Final = frozenset({signal.SIGTERM, signal.SIGINT})


class Supervisor:
    """Runs one command until it is told to end.

    Its signals are blocked and waited for, so none is missed. The runner inherits the block and lifts it when
    it can hear (servicekit's `run_service`): one that is told while it is still starting ends in good order
    too.

    Args:
        command: The runner's own.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._ending = False

    def run(self) -> int:
        """Keep the runner running until SIGTERM or SIGINT; return its last exit status."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {*_END, signal.SIGCHLD})
        backoff_s = _FIRST_BACKOFF_S
        while True:
            begin = time.monotonic()
            status = self._run_once()
            if self._ending:
                # A killed one has not cleaned: that is what the last one is for.
                return status if status >= 0 else self._run_once()
            _say(f"the runner ended (status {status}) and is started again")
            if time.monotonic() - begin > _SETTLED_S:
                backoff_s = _FIRST_BACKOFF_S
            self._pause(backoff_s)
            backoff_s = min(backoff_s * 2, _LAST_BACKOFF_S)

    def _run_once(self) -> int:
        runner = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
        if self._ending:
            os.kill(runner.pid, signal.SIGTERM)
        while True:
            number = signal.sigwait({*_END, signal.SIGCHLD})
            if number in _END:
                self._ending = True
                os.kill(runner.pid, signal.SIGTERM)
            elif (status := _reap(runner.pid)) is not None:
                # Reaped here and not by Popen, which would otherwise wait for it again.
                runner.returncode = status
                return status

    def _pause(self, seconds: float) -> None:
        """Wait before the next start; a signal makes it the last one, at once."""
        if signal.sigtimedwait(_END, seconds) is not None:
            self._ending = True


def _reap(runner_pid: int) -> int | None:
    """Reap whoever has ended (PID 1 inherits orphans); return the runner's status if it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == runner_pid:
            found = os.waitstatus_to_exitcode(status)


def _say(text: str) -> None:
    sys.stderr.write(f'{{"level": "WARNING", "service": "qemu-runner", "event": "{text}"}}\n')


def main() -> int:
    """Supervise `python -m qemu_runner` with this process's own arguments."""
    return Supervisor([sys.executable, "-m", "qemu_runner", *sys.argv[1:]]).run()


if __name__ == "__main__":
    sys.exit(main())
