"""What is done to instances and what strikes meanwhile: drawn from a seed, nothing here acts."""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Fault(StrEnum):
    """What strikes."""

    CONTROLLER_AT_MOMENT = "controller killed at a fail point"
    CONTROLLER_AT_CALL = "controller killed while a peer works for it"
    CONTROLLER_FROZEN = "controller frozen"
    RUNNER_CUT = "connection to the runner cut"
    RUNNER_KILLED = "runner killed"
    RUNNER_SLOW = "runner frozen"
    STORE_CUT = "connection to the image store cut"
    STORE_KILLED = "image store killed"
    VM_HOST_KILLED = "vm-host killed"
    QEMU_KILLED = "QEMU killed"
    GUEST_OFF = "guest powers itself off"
    CANCEL = "cancelled"
    SUPERSEDE = "superseded by force"
    DATABASE_LOCKED = "database locked"
    CLOCK_STEPPED = "clock stepped by an hour"


# How often each is drawn.
WEIGHTS: Final[dict[Fault, int]] = {
    Fault.CONTROLLER_AT_MOMENT: 30,
    Fault.CONTROLLER_AT_CALL: 15,
    Fault.CONTROLLER_FROZEN: 4,
    Fault.RUNNER_CUT: 15,
    Fault.RUNNER_KILLED: 15,
    Fault.RUNNER_SLOW: 4,
    Fault.STORE_CUT: 6,
    Fault.STORE_KILLED: 5,
    Fault.VM_HOST_KILLED: 3,
    Fault.QEMU_KILLED: 5,
    Fault.GUEST_OFF: 5,
    Fault.CANCEL: 10,
    Fault.SUPERSEDE: 8,
    Fault.DATABASE_LOCKED: 2,
    Fault.CLOCK_STEPPED: 1,
}
# Where a controller can be told to end itself; `controller.operations.failpoints` has the forms.
_STEPS: Final = {
    "launch": ("image", "machine", "power", "running"),
    "start": ("image", "machine", "power", "running"),
    "stop": ("power-off",),
    "restart": ("power-off", "image", "machine", "power", "running"),
    "pause": ("pause",),
    "resume": ("resume",),
    "reset": ("reset",),
    "update": ("machine",),
    "delete": ("begin", "machine", "image"),
}
_WHEN: Final = ("before_look", "before_enter", "before_do", "after_do")
MOMENTS: Final = tuple(
    sorted(
        {f"step.{step}.{when}" for steps in _STEPS.values() for step in steps for when in _WHEN}
        | {"claim.after_commit", "settle.before_commit", "settle.after_commit"}
        | {"undo.before_commit", "undo.after_commit"}
        | {f"undo.{step}.{when}" for step in ("image", "machine", "power") for when in ("before", "after")}
    )
)

CALLS: Final = (
    *(
        f"{call}.{when}"
        for call in ("prepare", "start", "stop", "pause", "resume", "reset", "delete", "quiesce", "get")
        for when in ("before", "after")
    ),
    "prepare.half",
    "pin.before",
    "pin.after",
    "unpin.before",
    "unpin.after",
)
# Which operation a verb files.
KINDS: Final = {
    "launch-off": "launch",
    "force-stop": "stop",
    "force-delete": "delete",
    "label": "update",
    "resize": "update",
}
# What can be asked of an instance in which state.
VERBS: Final[dict[str, Sequence[str]]] = {
    "RUNNING": ("stop", "force-stop", "restart", "pause", "reset", "force-delete", "label"),
    "PAUSED": ("resume", "stop", "force-delete"),
    "STOPPED": ("start", "start", "start", "resize", "delete", "label"),
    "FAILED": ("start", "start", "delete"),
}


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault.

    Attributes:
        after_calls: How many points of peers are reached before it strikes, since the one before.
        moment: For a kill at a fail point: its name.
        call: For what strikes at a call: at which point; the next one that comes there.
        seconds: How long what passes lasts.
    """

    fault: Fault
    after_calls: int
    moment: str
    call: str
    seconds: float


def strikes(rng: random.Random, operations: int, kinds: Collection[str]) -> list[Strike]:
    """Draw what strikes while that many operations, of these kinds, are at work."""
    chosen = rng.choices(list(WEIGHTS), weights=list(WEIGHTS.values()), k=rng.randint(12, 24))
    moments = [moment for moment in MOMENTS if not moment.startswith("step.") or _is_of(moment, kinds)]
    return [
        Strike(
            fault,
            rng.randrange(max(1, operations // 2)),
            rng.choice(moments),
            rng.choice(CALLS),
            rng.choice((0.0, 0.02, 0.1, 0.3)),
        )
        for fault in chosen
    ]


def _is_of(moment: str, kinds: Collection[str]) -> bool:
    return any(moment.split(".")[1] in _STEPS[kind] for kind in kinds)
