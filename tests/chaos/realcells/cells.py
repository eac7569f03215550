"""Which cells there are, and choosing some of them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# Operations, and the moments at which their controller can be held (`controller.operations.failpoints`).
_CLAIMED, _ENDING, _ENDED = "claim.after_commit", "settle.before_commit", "settle.after_commit"
MOMENTS: Final[dict[str, tuple[str, ...]]] = {
    "launch": (
        _CLAIMED,
        "step.image.before_do",
        "step.image.after_do",
        "step.machine.before_do",
        "step.machine.after_do",
        "step.power.before_do",
        "step.power.after_do",
        "step.running.before_do",
        "step.running.after_do",
        _ENDING,
        _ENDED,
    ),
    "start": (_CLAIMED, "step.power.before_do", "step.power.after_do", "step.running.before_do", _ENDING),
    "stop": (
        _CLAIMED,
        "step.power-off.before_enter",
        "step.power-off.before_do",
        "step.power-off.after_do",
        _ENDING,
    ),
    "restart": (
        "step.power-off.before_do",
        "step.power-off.after_do",
        "step.power.before_do",
        "step.power.after_do",
        _ENDING,
    ),
    "pause": ("step.pause.before_do", "step.pause.after_do", _ENDING),
    "resume": ("step.resume.before_do", "step.resume.after_do", _ENDING),
    "reset": ("step.reset.before_do", "step.reset.after_do", _ENDING),
    "update": ("step.machine.before_do", "step.machine.after_do", _ENDING),
    "delete": (
        "step.begin.before_do",
        "step.begin.after_do",
        "step.machine.before_do",
        "step.machine.after_do",
        "step.image.before_do",
        "step.image.after_do",
        _ENDING,
    ),
}
# Moments inside the runner, for its own death (`qemu_runner.service.actions`).
_ACTIONS: Final[dict[str, tuple[str, ...]]] = {
    "launch": ("prepare", "start"),
    "start": ("start",),
    "stop": ("stop",),
    "restart": ("stop", "start"),
    "pause": ("pause",),
    "resume": ("resume",),
    "reset": ("reset",),
    "update": ("prepare",),
    "delete": ("quiesce", "delete"),
}
UPLOADS: Final = ("upload.sealed", "upload.published", "upload.stored")
VICTIMS: Final = ("gateway", "controller", "image-store", "qemu-runner", "dnsmasq", "QEMU", "vm-host")
# Whose death ends guests.
DEADLY: Final = frozenset({"vm-host", "QEMU"})


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell; at `moment` the controller stands still, or the victim itself ends there."""

    operation: str
    moment: str
    victim: str

    def __str__(self) -> str:
        return f"{self.operation}/{self.moment}/{self.victim}"

    @property
    def ends_itself(self) -> bool:
        """Whether the victim is the one that reaches the moment."""
        own = {
            "controller": ("claim.", "step.", "settle."),
            "qemu-runner": ("runner.",),
            "image-store": ("upload.",),
        }
        return self.moment.startswith(own.get(self.victim, ("nothing",)))

    @property
    def harms_guests(self) -> bool:
        """Whether a guest may end by it."""
        return self.victim in DEADLY


def all_cells() -> list[Cell]:
    """Return every cell, in a fixed order."""
    cells = [
        Cell(operation, moment, victim)
        for operation, moments in MOMENTS.items()
        for moment in moments
        for victim in VICTIMS
    ]
    cells += [
        Cell(operation, f"runner.{action}.{when}", "qemu-runner")
        for operation, actions in _ACTIONS.items()
        for action in actions
        for when in ("before", "after")
    ]
    cells += [Cell("upload", moment, victim) for moment in UPLOADS for victim in ("image-store", "gateway")]
    return cells


def sample(count: int, seed: int) -> list[Cell]:
    """Return `count` cells: each operation and each victim among them as far as they go, the rest drawn.

    Those that end guests come last: what stands by is booted anew after each.
    """
    rng = random.Random(seed)
    left = all_cells()
    rng.shuffle(left)
    chosen: list[Cell] = []
    for missing in (_first_of(left, "operation"), _first_of(left, "victim")):
        chosen += [cell for cell in missing if cell not in chosen]
    chosen = chosen[:count]
    chosen += [cell for cell in left if cell not in chosen][: count - len(chosen)]
    return sorted(chosen, key=lambda cell: cell.harms_guests)


def _first_of(cells: Sequence[Cell], name: str) -> list[Cell]:
    found: dict[str, Cell] = {}
    for cell in cells:
        found.setdefault(getattr(cell, name), cell)
    return list(found.values())
