"""Which cells there are, and choosing some of them."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class How(StrEnum):
    """How something is struck."""

    KILLED = "killed"
    FROZEN = "frozen"
    CUT = "cut"
    FULL = "full"
    LOCKED = "locked"
    FORWARD = "an-hour-ahead"
    BACK = "an-hour-back"


# Operations and their steps in the order of their plans (`controller.plans.kinds`), each with whether it has
# something to do in a cell: the image of a machine that is started again is pinned, its files are made.
_STEPS: Final[dict[str, tuple[tuple[str, bool], ...]]] = {
    "launch": (("image", True), ("machine", True), ("power", True), ("running", True)),
    "start": (("image", False), ("machine", False), ("power", True), ("running", True)),
    "stop": (("power-off", True),),
    "restart": (
        ("power-off", True),
        ("image", False),
        ("machine", False),
        ("power", True),
        ("running", True),
    ),
    "pause": (("pause", True),),
    "resume": (("resume", True),),
    "reset": (("reset", True),),
    "update": (("machine", True),),
    "delete": (("begin", True), ("machine", True), ("image", True)),
}
# A launch that is cancelled while its machine is started: what its undoing passes.
_UNDOING: Final = tuple(
    f"undo.{step}.{when}" for step in ("power", "machine", "image") for when in ("before", "after")
)
# Moments inside the runner (`qemu_runner.service.actions`).
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
# The calls of each operation (`servicekit.call_moments`).
_CALLS: Final[dict[str, tuple[str, ...]]] = {
    "launch": (
        "LaunchInstance",
        "GetImage",
        "PinImage",
        "PlanMachine",
        "PrepareMachine",
        "ReadBlob",
        "StartMachine",
        "GetMachine",
        "GetOperation",
    ),
    "cancelled": ("CancelOperation", "QuiesceMachine", "DeleteMachine", "UnpinImage"),
    "start": ("StartInstance", "PlanMachine", "GetMachine", "StartMachine"),
    "stop": ("StopInstance", "GetMachine", "StopMachine"),
    "restart": ("RestartInstance", "GetMachine", "StopMachine", "StartMachine"),
    "pause": ("PauseInstance", "GetMachine", "PauseMachine"),
    "resume": ("ResumeInstance", "GetMachine", "ResumeMachine"),
    "reset": ("ResetInstance", "ResetMachine"),
    "update": ("UpdateInstance", "GetMachine", "PrepareMachine"),
    "delete": ("DeleteInstance", "GetMachine", "QuiesceMachine", "DeleteMachine", "UnpinImage"),
    "upload": ("UploadImage",),
}
_CONTROLLERS: Final = ("gateway-controller", "controller")
_RUNNERS: Final = ("controller-runner", "qemu-runner")
_STORES: Final = ("controller-image-store", "image-store")
# At which edge a call is made, and who answers it; the others are the runner's (below).
_ANSWERED: Final[dict[str, tuple[str, str]]] = {
    "GetImage": _STORES,
    "PinImage": _STORES,
    "UnpinImage": _STORES,
    "ReadBlob": ("runner-image-store", "image-store"),
    "UploadImage": ("gateway-image-store", "image-store"),
}
UPLOADS: Final = ("upload.sealed", "upload.published", "upload.stored")

_PROCESSES: Final = (
    "gateway",
    "controller",
    "image-store",
    "qemu-runner",
    "vm-host",
    "QEMU",
    "dnsmasq",
    "MinIO",
)
# What can be struck while the controller stands still.
_STRIKES: Final = (
    *((how, process) for how in (How.KILLED, How.FROZEN) for process in _PROCESSES),
    (How.FULL, "disk"),
    (How.LOCKED, "controller.db"),
    (How.LOCKED, "image-store.db"),
    (How.FORWARD, "clock"),
    (How.BACK, "clock"),
)
# And in the middle of an upload.
_UPLOAD_STRIKES: Final = (
    *((how, process) for how in (How.KILLED, How.FROZEN) for process in ("gateway", "image-store", "MinIO")),
    (How.CUT, "gateway-image-store"),
    (How.FULL, "disk"),
    (How.LOCKED, "image-store.db"),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: `victim` is struck while the one that passes `moment` stands still there."""

    operation: str
    moment: str
    how: How
    victim: str

    def __str__(self) -> str:
        return f"{self.operation}/{self.moment}/{self.victim}-{self.how}"

    @property
    def holder(self) -> str:
        """The service that passes the moment."""
        first, name, *_ = self.moment.split(".")
        match first:
            case "rpc":
                return edge_of(name)[1]
            case "runner":
                return "qemu-runner"
            case "upload":
                return "image-store"
            case _:
                return "controller"

    @property
    def ends_itself(self) -> bool:
        """Whether the victim is killed by what it comes to itself."""
        return self.how is How.KILLED and self.victim == self.holder

    @property
    def harms_guests(self) -> bool:
        """Whether a guest may end by it."""
        return self.how is How.KILLED and self.victim in {"vm-host", "QEMU"}

    @property
    def excuses_failure(self) -> bool:
        """Whether the operation may end without success.

        A guest that ended or does not answer, no room, and a deadline that has passed by the clock.
        """
        unheard = self.how is How.FROZEN and self.victim in {"vm-host", "QEMU"}
        return self.harms_guests or unheard or self.how in {How.FULL, How.FORWARD}

    @property
    def needs_a_new_image(self) -> bool:
        """Whether the machine's image must not be on the host yet, so that it is fetched in the cell."""
        fetched = {"image-store", "MinIO", "runner-image-store"}
        return self.operation in {"launch", "cancelled"} and (
            self.victim in fetched or self.moment.startswith("rpc.ReadBlob")
        )


def edge_of(call: str) -> tuple[str, str]:
    """Return the edge at which a call is made, and the service that answers it."""
    found = _ANSWERED.get(call)
    if found is None:
        return _RUNNERS if call.endswith("Machine") else _CONTROLLERS
    return found


def moments_of(operation: str) -> list[str]:
    """Return the moments of its controller (`controller.operations.failpoints`)."""
    if operation == "cancelled":
        return [*_UNDOING, "settle.before_commit", "settle.after_commit"]
    found = ["claim.after_commit"]
    for step, does in _STEPS[operation]:
        found.append(f"step.{step}.before_look")
        found += [f"step.{step}.{when}" for when in ("before_enter", "before_do", "after_do") if does]
    return [*found, "settle.before_commit", "settle.after_commit"]


def all_cells() -> list[Cell]:
    """Return every cell, in a fixed order."""
    cells = [
        Cell(operation, moment, how, victim)
        for operation in (*_STEPS, "cancelled")
        for moment in moments_of(operation)
        for how, victim in _STRIKES
    ]
    inside = [
        (operation, f"runner.{action}.{when}", *_RUNNERS)
        for operation, actions in _ACTIONS.items()
        for action in actions
        for when in ("before", "after")
    ]
    inside += [
        (operation, f"rpc.{call}.{when}", *edge_of(call))
        for operation, calls in _CALLS.items()
        for call in calls
        for when in ("before", "after")
    ]
    for operation, moment, edge, service in inside:
        cells += [Cell(operation, moment, how, service) for how in (How.KILLED, How.FROZEN)]
        cells.append(Cell(operation, moment, How.CUT, edge))
    return cells + [
        Cell("upload", moment, how, victim) for moment in UPLOADS for how, victim in _UPLOAD_STRIKES
    ]


def sample(count: int, seed: int) -> list[Cell]:
    """Return `count` cells: each operation, victim and way among them as far as they go, the rest drawn.

    Those that end guests come last: what stands by is booted anew after each.
    """
    rng = random.Random(seed)
    left = all_cells()
    rng.shuffle(left)
    chosen = list(_covering(left))[:count]
    known = set(chosen)
    chosen += [cell for cell in left if cell not in known][: count - len(chosen)]
    return sorted(chosen, key=lambda cell: cell.harms_guests)


def traits(cell: Cell) -> set[str]:
    """Return what a sample is to have one of each of."""
    return {f"of {cell.operation}", f"at {cell.victim}", f"by {cell.how}"}


def _covering(cells: list[Cell]) -> Iterator[Cell]:
    missing = set().union(*map(traits, cells))
    while missing:
        best = max(cells, key=lambda cell: len(traits(cell) & missing))
        missing -= traits(best)
        yield best
