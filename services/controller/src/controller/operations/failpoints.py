"""Named moments at which a test may end the process.

The names: `claim.after_commit`; `step.<step>.before_look`, `.before_enter`, `.before_do`, `.after_do`;
`undo.before_commit`, `undo.after_commit`, `undo.<step>.before`, `.after`; `settle.before_commit`,
`settle.after_commit`; `sealing.page`, between two pages of secrets that are sealed anew. Nothing happens
there unless the composition root hands in a hook.
"""

from collections.abc import Callable

FailPoints = Callable[[str], None]


def no_fail_points(name: str) -> None:
    """Pass by."""
    del name
