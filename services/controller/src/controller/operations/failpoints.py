"""Named moments at which a test may kill the process.

The names: `claim.after_commit`; `step.<step>.before_look`, `.before_enter`, `.before_do`, `.after_do`;
`undo.before_commit`, `undo.after_commit`, `undo.<step>.before`, `.after`; `settle.before_commit`,
`settle.after_commit`. Nothing happens there unless the composition root hands in a hook, which it makes of
`QC_FAIL_POINT_FILE=<path>`.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

FailPoints = Callable[[str], None]


def no_fail_points(name: str) -> None:
    """Pass by."""
    del name


def armed_by(file: Path) -> FailPoints:
    """Return a hook that ends this process by SIGKILL at the moment that `file` names, once.

    The file goes first: the process that is started instead passes the same moment unharmed.
    """

    def reached(name: str) -> None:
        if file.exists() and file.read_text(encoding="utf-8").strip() == name:
            file.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    return reached
