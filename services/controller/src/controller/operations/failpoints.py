"""Named moments at which a test may kill the process.

The names: `claim.after_commit`; `step.<step>.before_look`, `.before_enter`, `.before_do`, `.after_do`;
`undo.before_commit`, `undo.after_commit`, `undo.<step>.before`, `.after`; `settle.before_commit`,
`settle.after_commit`. Nothing happens there unless the composition root hands in a hook made from
`QC_FAIL_POINT=<name>:kill`.
"""

import os
import signal
from collections.abc import Callable

FailPoints = Callable[[str], None]


def no_fail_points(name: str) -> None:
    """Pass by."""
    del name


def parse_fail_point(setting: str) -> FailPoints:
    """Return the hook for `<name>:<action>`; the one action is `kill` (SIGKILL to this process).

    Raises:
        ValueError: If the setting is not of that form.
    """
    wanted, _, action = setting.rpartition(":")
    if not wanted or action != "kill":
        raise ValueError(f"a fail point is <name>:kill, not {setting!r}")

    def reached(name: str) -> None:
        if name == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    return reached
