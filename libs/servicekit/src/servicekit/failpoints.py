"""Named moments at which a test may end or freeze the process (ADR 16).

Nothing happens there unless `QC_FAIL_POINT_FILE` was set when the service was put together. Each service says
which moments it passes, and under which names.
"""

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

FailPoints = Callable[[str], None]
VARIABLE: Final = "QC_FAIL_POINT_FILE"
FREEZE: Final = "freeze"


def no_fail_points(name: str) -> None:
    """Pass by."""
    del name


def armed_by(file: Path) -> FailPoints:
    """Return a hook that acts at the moment that `file` names, once: SIGKILL, or SIGSTOP for "<name> freeze".

    The file goes first: the process that is started instead passes the same moment unharmed.
    """

    def reached(name: str) -> None:
        try:
            moment, _, what = file.read_text(encoding="utf-8").strip().partition(" ")
            if moment != name:
                return
            file.unlink()
        except FileNotFoundError:
            # Nothing is asked for, or it has just been taken back or reached elsewhere.
            return
        os.kill(os.getpid(), signal.SIGSTOP if what == FREEZE else signal.SIGKILL)

    return reached


def fail_points_of(environ: Mapping[str, str]) -> FailPoints:
    """Return what the environment says."""
    file = environ.get(VARIABLE, "")
    return armed_by(Path(file)) if file else no_fail_points
