"""The lifecycle's table, every pair of it."""

from pathlib import Path

import pytest
from controller.domain.lifecycle import (
    TRANSITIONS,
    Event,
    IllegalTransition,
    InstanceState,
    Verb,
    admits,
    allowed,
    as_page,
    event_of,
    next_state,
)

PAGE = Path(__file__).parents[4] / "docs" / "lifecycle.md"
S, E = InstanceState, Event

# State by state, what each event leads to; every pair that is not here must be refused.
OFF = {E.IS_OFF, E.GUEST_SHUT_DOWN, E.HOST_SHUT_DOWN}
LOST = {
    E.QEMU_EXITED,
    E.QEMU_KILLED,
    E.QEMU_BROKE,
    E.GUEST_PANICKED,
    E.VM_HOST_GONE,
    E.HOST_RESTARTED,
    E.MACHINE_LOST,
}
RUNNER = {E.RUNNER_GONE, E.RUNNER_BACK, E.OLDER_VIEW}
DELETE = {E.DELETE, E.FORCE_DELETE}
STANDS_STILL = {E.IS_PAUSED, E.DISK_FAILED}

EXPECTED: dict[InstanceState, dict[InstanceState, set[Event]]] = {
    S.CREATING: {
        S.CREATING: RUNNER,
        S.STOPPING: {E.FORCE_STOP},
        S.DELETING: DELETE,
        S.STARTING: {E.BOOT},
        S.STOPPED: OFF,
        S.FAILED: {E.START_FAILED, *LOST},
    },
    S.STOPPED: {
        S.STOPPED: {E.RESIZE, *OFF, *LOST, *RUNNER},
        S.STARTING: {E.START},
        S.DELETING: DELETE,
        S.RUNNING: {E.IS_RUNNING},
        S.PAUSED: STANDS_STILL,
    },
    S.STARTING: {
        S.STARTING: {E.GUEST_REBOOTED, *RUNNER},
        S.STOPPING: {E.FORCE_STOP},
        S.DELETING: DELETE,
        S.RUNNING: {E.IS_RUNNING},
        S.PAUSED: STANDS_STILL,
        S.STOPPED: OFF,
        S.FAILED: {E.START_FAILED, *LOST},
    },
    S.RUNNING: {
        S.RUNNING: {E.RESET, E.IS_RUNNING, E.GUEST_REBOOTED, *RUNNER},
        S.STOPPING: {E.STOP, E.FORCE_STOP, E.RESTART},
        S.PAUSED: {E.PAUSE, *STANDS_STILL},
        S.DELETING: {E.FORCE_DELETE},
        S.STOPPED: OFF,
        S.FAILED: LOST,
    },
    S.PAUSED: {
        S.PAUSED: {E.GUEST_REBOOTED, *STANDS_STILL, *RUNNER},
        S.STOPPING: {E.STOP, E.FORCE_STOP},
        S.RUNNING: {E.RESUME, E.IS_RUNNING},
        S.DELETING: {E.FORCE_DELETE},
        S.STOPPED: OFF,
        S.FAILED: LOST,
    },
    S.STOPPING: {
        S.STOPPING: {E.FORCE_STOP, E.GUEST_REBOOTED, *RUNNER},
        S.DELETING: {E.FORCE_DELETE},
        S.STARTING: {E.BOOT},
        S.RUNNING: {E.IS_RUNNING},
        S.PAUSED: STANDS_STILL,
        S.STOPPED: OFF,
        S.FAILED: {E.START_FAILED, *LOST},
    },
    S.FAILED: {
        S.FAILED: {*OFF, *LOST, *RUNNER},
        S.STARTING: {E.START},
        S.STOPPING: {E.STOP, E.FORCE_STOP},
        S.DELETING: DELETE,
        S.RUNNING: {E.IS_RUNNING},
        S.PAUSED: STANDS_STILL,
    },
    S.DELETING: {
        S.DELETING: {E.GUEST_REBOOTED, *RUNNER},
        S.RUNNING: {E.IS_RUNNING},
        S.PAUSED: STANDS_STILL,
        S.STOPPED: OFF,
        S.FAILED: {E.START_FAILED, *LOST},
    },
}


@pytest.mark.parametrize("state", InstanceState)
@pytest.mark.parametrize("event", Event)
def test_every_pair_leads_where_it_should_or_is_refused(state: InstanceState, event: Event) -> None:
    expected = [following for following, events in EXPECTED[state].items() if event in events]
    if expected:
        assert next_state(state, event) is expected[0]
    else:
        with pytest.raises(IllegalTransition):
            next_state(state, event)


@pytest.mark.parametrize(
    ("state", "verbs"),
    [
        (S.STOPPED, {Verb.START, Verb.RESIZE, Verb.DELETE}),
        (S.RUNNING, {Verb.STOP, Verb.RESTART, Verb.PAUSE, Verb.RESET, Verb.FORCE_DELETE}),
        (S.PAUSED, {Verb.STOP, Verb.RESUME, Verb.FORCE_DELETE}),
        (S.FAILED, {Verb.START, Verb.STOP, Verb.DELETE}),
        (S.DELETING, set()),
    ],
)
def test_what_is_allowed_follows_from_the_table(state: InstanceState, verbs: set[Verb]) -> None:
    assert set(allowed(state)) == verbs


@pytest.mark.parametrize("verb", Verb)
def test_a_verb_is_admitted_where_its_event_is_in_the_table(verb: Verb) -> None:
    assert {state for state in InstanceState if admits(state, verb)} == {
        state for state, event in TRANSITIONS if event is event_of(verb)
    }


@pytest.mark.parametrize("state", InstanceState)
@pytest.mark.parametrize("event", sorted(RUNNER))
def test_nothing_that_is_known_of_the_runner_alone_moves_a_state(state: InstanceState, event: Event) -> None:
    assert next_state(state, event) is state


def test_a_failed_instance_can_always_be_started_and_deleted() -> None:
    assert {Verb.START, Verb.DELETE} <= set(allowed(S.FAILED))


def test_the_figure_in_the_docs_is_that_of_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == as_page(), (
        "python -m controller.domain.lifecycle > docs/lifecycle.md"
    )
