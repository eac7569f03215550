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
    """What can happen to an instance: a verb is carried out, an operation goes on, a machine is found so."""

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
    # Verified by looking at the machine under the operation's fence.
    IS_RUNNING = "is running"
    IS_PAUSED = "is paused"
    IS_OFF = "is off"
    IS_LOST = "is lost"


_S = InstanceState
_E = Event

TRANSITIONS: Final[dict[tuple[InstanceState, Event], InstanceState]] = {
    (_S.CREATING, _E.FORCE_STOP): _S.STOPPING,
    (_S.CREATING, _E.DELETE): _S.DELETING,
    (_S.CREATING, _E.FORCE_DELETE): _S.DELETING,
    (_S.CREATING, _E.BOOT): _S.STARTING,
    (_S.CREATING, _E.IS_OFF): _S.STOPPED,
    (_S.CREATING, _E.IS_LOST): _S.FAILED,
    (_S.STOPPED, _E.START): _S.STARTING,
    (_S.STOPPED, _E.RESIZE): _S.STOPPED,
    (_S.STOPPED, _E.DELETE): _S.DELETING,
    (_S.STOPPED, _E.FORCE_DELETE): _S.DELETING,
    (_S.STOPPED, _E.IS_RUNNING): _S.RUNNING,
    (_S.STOPPED, _E.IS_PAUSED): _S.PAUSED,
    (_S.STARTING, _E.FORCE_STOP): _S.STOPPING,
    (_S.STARTING, _E.DELETE): _S.DELETING,
    (_S.STARTING, _E.FORCE_DELETE): _S.DELETING,
    (_S.STARTING, _E.IS_RUNNING): _S.RUNNING,
    # An imported machine that stands still.
    (_S.STARTING, _E.IS_PAUSED): _S.PAUSED,
    (_S.STARTING, _E.IS_OFF): _S.STOPPED,
    (_S.STARTING, _E.IS_LOST): _S.FAILED,
    (_S.RUNNING, _E.STOP): _S.STOPPING,
    (_S.RUNNING, _E.FORCE_STOP): _S.STOPPING,
    (_S.RUNNING, _E.RESTART): _S.STOPPING,
    (_S.RUNNING, _E.PAUSE): _S.PAUSED,
    (_S.RUNNING, _E.RESET): _S.RUNNING,
    (_S.RUNNING, _E.FORCE_DELETE): _S.DELETING,
    (_S.RUNNING, _E.IS_PAUSED): _S.PAUSED,
    (_S.RUNNING, _E.IS_OFF): _S.STOPPED,
    (_S.RUNNING, _E.IS_LOST): _S.FAILED,
    (_S.PAUSED, _E.STOP): _S.STOPPING,
    (_S.PAUSED, _E.FORCE_STOP): _S.STOPPING,
    (_S.PAUSED, _E.RESUME): _S.RUNNING,
    (_S.PAUSED, _E.FORCE_DELETE): _S.DELETING,
    (_S.PAUSED, _E.IS_RUNNING): _S.RUNNING,
    (_S.PAUSED, _E.IS_OFF): _S.STOPPED,
    (_S.PAUSED, _E.IS_LOST): _S.FAILED,
    (_S.STOPPING, _E.FORCE_STOP): _S.STOPPING,
    (_S.STOPPING, _E.FORCE_DELETE): _S.DELETING,
    (_S.STOPPING, _E.BOOT): _S.STARTING,
    (_S.STOPPING, _E.IS_RUNNING): _S.RUNNING,
    (_S.STOPPING, _E.IS_PAUSED): _S.PAUSED,
    (_S.STOPPING, _E.IS_OFF): _S.STOPPED,
    (_S.STOPPING, _E.IS_LOST): _S.FAILED,
    (_S.FAILED, _E.START): _S.STARTING,
    (_S.FAILED, _E.STOP): _S.STOPPING,
    (_S.FAILED, _E.FORCE_STOP): _S.STOPPING,
    (_S.FAILED, _E.DELETE): _S.DELETING,
    (_S.FAILED, _E.FORCE_DELETE): _S.DELETING,
    (_S.FAILED, _E.IS_RUNNING): _S.RUNNING,
    (_S.FAILED, _E.IS_PAUSED): _S.PAUSED,
    # A delete that was called off before its point of no return.
    (_S.DELETING, _E.IS_RUNNING): _S.RUNNING,
    (_S.DELETING, _E.IS_PAUSED): _S.PAUSED,
    (_S.DELETING, _E.IS_OFF): _S.STOPPED,
    (_S.DELETING, _E.IS_LOST): _S.FAILED,
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
    """Return the table as a figure."""
    edges: dict[tuple[InstanceState, InstanceState], list[str]] = {}
    for (state, event), following in TRANSITIONS.items():
        edges.setdefault((state, following), []).append(event.value)
    lines = ["stateDiagram-v2", "  [*] --> CREATING: launch, import"]
    lines += [
        f"  {state} --> {following}: {', '.join(events)}" for (state, following), events in edges.items()
    ]
    lines.append("  DELETING --> [*]: nothing is left")
    return "\n".join(lines)


def as_page() -> str:
    """Return docs/lifecycle.md."""
    rows = "\n".join(f"| {state} | {', '.join(allowed(state)) or 'nothing'} |" for state in InstanceState)
    return f"""# Lifecycle of an instance

Drawn from the one table that moves states, `controller.domain.lifecycle`; a test keeps this page in step.
Write it anew with `python -m controller.domain.lifecycle > docs/lifecycle.md`.

```mermaid
{as_mermaid()}
```

What can be asked for in which state (`metadata.allowed` of `INSTANCE_STATE_CONFLICT`):

| State | Allowed |
|---|---|
{rows}

`is …` events are what an operation has seen of the machine, under its fence; QEMU's run state by itself
decides nothing. A forced stop and a delete supersede the operation at work; a forced form is listed only
where the plain one is refused.
"""


if __name__ == "__main__":
    print(as_page(), end="")
