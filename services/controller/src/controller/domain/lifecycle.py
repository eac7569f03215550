"""The life of an instance: one table, one function.

Nothing else in the service decides which state follows which, and no state is written but through
`next_state`. QEMU's run state is an observation; it comes in here only as an `IS_…` event that an operation
has verified. docs/lifecycle.md is drawn from this table (`python -m controller.domain.lifecycle`).
"""

from enum import StrEnum
from typing import Final


class InstanceState(StrEnum):
    """State as stored and as clients see it."""

    CREATING = "CREATING"
    STOPPED = "STOPPED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    STOPPING = "STOPPING"
    FAILED = "FAILED"
    DELETING = "DELETING"


class Verb(StrEnum):
    """What a client can ask of an instance."""

    START = "start"
    STOP = "stop"
    FORCE_STOP = "stop(force)"
    RESTART = "restart"
    PAUSE = "pause"
    RESUME = "resume"
    RESET = "reset"
    RESIZE = "update"
    DELETE = "delete"
    FORCE_DELETE = "delete(force)"


class Event(StrEnum):
    """What can happen to an instance: a verb is carried out, an operation goes on, something is observed."""

    START = "start"
    STOP = "stop"
    FORCE_STOP = "force stop"
    RESTART = "restart"
    PAUSE = "pause"
    RESUME = "resume"
    RESET = "reset"
    RESIZE = "resize"
    DELETE = "delete"
    FORCE_DELETE = "force delete"
    # The operation at work goes on to power the machine on: second half of a launch or a restart.
    BOOT = "boot"
    # The operation at work could not bring the machine up.
    START_FAILED = "start failed"
    # Verified by looking at the machine under the operation's fence.
    IS_RUNNING = "is running"
    IS_PAUSED = "is paused"
    IS_OFF = "is off"
    GUEST_SHUT_DOWN = "guest shut itself down"
    HOST_SHUT_DOWN = "vm-host shut down"
    DISK_FAILED = "disk failed"
    QEMU_EXITED = "QEMU exited"
    QEMU_KILLED = "QEMU was killed"
    QEMU_BROKE = "QEMU broke down"
    GUEST_PANICKED = "guest panicked"
    VM_HOST_GONE = "vm-host gone"
    HOST_RESTARTED = "host restarted"
    MACHINE_LOST = "machine lost"
    # What is seen beside a state and never moves one.
    GUEST_REBOOTED = "guest rebooted"
    RUNNER_GONE = "runner gone"
    RUNNER_BACK = "runner back"
    OLDER_VIEW = "older view"


_S = InstanceState
_E = Event

ENDS: Final = (_E.IS_OFF, _E.GUEST_SHUT_DOWN, _E.HOST_SHUT_DOWN)
"""The machine has no process, and somebody wanted that."""
LOSSES: Final = (
    _E.QEMU_EXITED,
    _E.QEMU_KILLED,
    _E.QEMU_BROKE,
    _E.GUEST_PANICKED,
    _E.VM_HOST_GONE,
    _E.HOST_RESTARTED,
    _E.MACHINE_LOST,
)
"""The machine cannot run any more, and nobody wanted that."""
_ABOUT_THE_RUNNER: Final = (_E.RUNNER_GONE, _E.RUNNER_BACK, _E.OLDER_VIEW)

# By state, where its events lead.
_ROWS: Final[dict[InstanceState, dict[InstanceState, tuple[Event, ...]]]] = {
    _S.CREATING: {
        _S.CREATING: _ABOUT_THE_RUNNER,
        _S.STARTING: (_E.BOOT,),
        _S.STOPPED: ENDS,
        _S.STOPPING: (_E.FORCE_STOP,),
        _S.FAILED: (_E.START_FAILED, *LOSSES),
        _S.DELETING: (_E.DELETE, _E.FORCE_DELETE),
    },
    _S.STOPPED: {
        # Whatever ended it: it has no process, as it should have none.
        _S.STOPPED: (_E.RESIZE, *ENDS, *LOSSES, *_ABOUT_THE_RUNNER),
        _S.STARTING: (_E.START,),
        _S.RUNNING: (_E.IS_RUNNING,),
        _S.PAUSED: (_E.IS_PAUSED, _E.DISK_FAILED),
        _S.DELETING: (_E.DELETE, _E.FORCE_DELETE),
    },
    _S.STARTING: {
        _S.STARTING: (_E.GUEST_REBOOTED, *_ABOUT_THE_RUNNER),
        _S.RUNNING: (_E.IS_RUNNING,),
        _S.PAUSED: (_E.IS_PAUSED, _E.DISK_FAILED),
        _S.STOPPED: ENDS,
        _S.STOPPING: (_E.FORCE_STOP,),
        _S.FAILED: (_E.START_FAILED, *LOSSES),
        _S.DELETING: (_E.DELETE, _E.FORCE_DELETE),
    },
    _S.RUNNING: {
        _S.RUNNING: (_E.RESET, _E.IS_RUNNING, _E.GUEST_REBOOTED, *_ABOUT_THE_RUNNER),
        _S.PAUSED: (_E.PAUSE, _E.IS_PAUSED, _E.DISK_FAILED),
        _S.STOPPING: (_E.STOP, _E.FORCE_STOP, _E.RESTART),
        _S.STOPPED: ENDS,
        _S.FAILED: LOSSES,
        _S.DELETING: (_E.FORCE_DELETE,),
    },
    _S.PAUSED: {
        _S.PAUSED: (_E.IS_PAUSED, _E.DISK_FAILED, _E.GUEST_REBOOTED, *_ABOUT_THE_RUNNER),
        _S.RUNNING: (_E.RESUME, _E.IS_RUNNING),
        _S.STOPPING: (_E.STOP, _E.FORCE_STOP),
        _S.STOPPED: ENDS,
        _S.FAILED: LOSSES,
        _S.DELETING: (_E.FORCE_DELETE,),
    },
    _S.STOPPING: {
        _S.STOPPING: (_E.FORCE_STOP, _E.GUEST_REBOOTED, *_ABOUT_THE_RUNNER),
        _S.STARTING: (_E.BOOT,),
        _S.RUNNING: (_E.IS_RUNNING,),
        _S.PAUSED: (_E.IS_PAUSED, _E.DISK_FAILED),
        _S.STOPPED: ENDS,
        _S.FAILED: (_E.START_FAILED, *LOSSES),
        _S.DELETING: (_E.FORCE_DELETE,),
    },
    _S.FAILED: {
        # The first failure is the one to keep: what ends later is its remains.
        _S.FAILED: (*ENDS, *LOSSES, *_ABOUT_THE_RUNNER),
        _S.STARTING: (_E.START,),
        _S.RUNNING: (_E.IS_RUNNING,),
        _S.PAUSED: (_E.IS_PAUSED, _E.DISK_FAILED),
        _S.STOPPING: (_E.STOP, _E.FORCE_STOP),
        _S.DELETING: (_E.DELETE, _E.FORCE_DELETE),
    },
    _S.DELETING: {
        _S.DELETING: (_E.GUEST_REBOOTED, *_ABOUT_THE_RUNNER),
        # A delete that was called off before its point of no return.
        _S.RUNNING: (_E.IS_RUNNING,),
        _S.PAUSED: (_E.IS_PAUSED, _E.DISK_FAILED),
        _S.STOPPED: ENDS,
        _S.FAILED: (_E.START_FAILED, *LOSSES),
    },
}

TRANSITIONS: Final[dict[tuple[InstanceState, Event], InstanceState]] = {
    (state, event): following
    for state, row in _ROWS.items()
    for following, events in row.items()
    for event in events
}

_EVENT_OF: Final[dict[Verb, Event]] = {
    Verb.START: Event.START,
    Verb.STOP: Event.STOP,
    Verb.FORCE_STOP: Event.FORCE_STOP,
    Verb.RESTART: Event.RESTART,
    Verb.PAUSE: Event.PAUSE,
    Verb.RESUME: Event.RESUME,
    Verb.RESET: Event.RESET,
    Verb.RESIZE: Event.RESIZE,
    Verb.DELETE: Event.DELETE,
    Verb.FORCE_DELETE: Event.FORCE_DELETE,
}

# Repeating a command whose goal already holds is a success without an operation.
GOALS: Final[dict[Verb, InstanceState]] = {
    Verb.START: InstanceState.RUNNING,
    Verb.STOP: InstanceState.STOPPED,
    Verb.FORCE_STOP: InstanceState.STOPPED,
    Verb.PAUSE: InstanceState.PAUSED,
    Verb.RESUME: InstanceState.RUNNING,
}


class IllegalTransition(RuntimeError):  # noqa: N818 - it says what happened
    """The table has no such entry: a defect, unless the caller asks in order to know."""


def next_state(state: InstanceState, event: Event) -> InstanceState:
    """Return the state that follows.

    Raises:
        IllegalTransition: The table has no such entry.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"{event} in state {state}") from None


def event_of(verb: Verb) -> Event:
    """Return the event that carrying out `verb` is."""
    return _EVENT_OF[verb]


def admits(state: InstanceState, verb: Verb) -> bool:
    """Whether an instance in `state` can be asked for `verb`."""
    return (state, _EVENT_OF[verb]) in TRANSITIONS


def allowed(state: InstanceState) -> tuple[Verb, ...]:
    """Return what can be asked for in `state`; a forced form only where the plain one is not possible."""
    verbs = [verb for verb in Verb if admits(state, verb)]
    for plain, forced in ((Verb.STOP, Verb.FORCE_STOP), (Verb.DELETE, Verb.FORCE_DELETE)):
        if plain in verbs:
            verbs.remove(forced)
    return tuple(verbs)


def as_mermaid() -> str:
    """Return the table as a figure; what keeps a state is not drawn, verbs excepted."""
    verbs = frozenset(_EVENT_OF.values())
    lines = ["stateDiagram-v2", "  [*] --> CREATING: launch, import"]
    for state, row in _ROWS.items():
        for following, events in row.items():
            drawn = [event.value for event in events if following is not state or event in verbs]
            if drawn:
                lines.append(f"  {state} --> {following}: {', '.join(drawn)}")
    lines.append("  DELETING --> [*]: nothing is left")
    return "\n".join(lines)


def _observations() -> str:
    """Return the rows of what is observed: where each event leads from each state."""
    told = [event for event in Event if event not in _EVENT_OF.values() and event is not Event.BOOT]
    rows = []
    for event in told:
        cells = (_cell(state, TRANSITIONS.get((state, event))) for state in InstanceState)
        rows.append(f"| {event} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(state: InstanceState, following: InstanceState | None) -> str:
    if following is None:
        return "no"
    return "stays" if following is state else following.value


def as_page() -> str:
    """Return docs/lifecycle.md."""
    rows = "\n".join(f"| {state} | {', '.join(allowed(state)) or 'nothing'} |" for state in InstanceState)
    states = " | ".join(InstanceState)
    return f"""# Lifecycle of an instance

Drawn from the one table that moves states, `controller.domain.lifecycle`; a test keeps this page in step.
Write it anew with `python -m controller.domain.lifecycle > docs/lifecycle.md`.
Reasons of FAILED and the ways out are in [failures.md](failures.md).

```mermaid
{as_mermaid()}
```

What can be asked for in which state (`metadata.allowed` of `INSTANCE_STATE_CONFLICT`):

| State | Allowed |
|---|---|
{rows}

What is observed, and where it leads from each state (`stays`: the state is kept; `no`: refused):

| Observed | {states} |
|---|{"---|" * len(InstanceState)}
{_observations()}

Observations come from the runner and decide nothing by themselves: what would move a state is looked at again
by an operation of the system (`observe-…`), under a fence, and that operation's end moves it. A state in an
operation's hands (CREATING, STARTING, STOPPING, DELETING) is moved by that operation alone. What stays beside
the state is told by conditions: a runner that is gone makes MachineRunning UNKNOWN, and a guest that reboots
is counted in `status.boots` while Ready turns FALSE and TRUE again. A forced stop and a delete supersede the
operation at work; a forced form is listed only where the plain one is refused.
"""


if __name__ == "__main__":
    print(as_page(), end="")
