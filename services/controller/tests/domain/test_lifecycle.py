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
EXPECTED: dict[InstanceState, dict[InstanceState, set[Event]]] = {
    S.CREATING: {
        S.STOPPING: {E.FORCE_STOP},
        S.DELETING: {E.DELETE, E.FORCE_DELETE},
        S.STARTING: {E.BOOT},
        S.STOPPED: {E.IS_OFF},
        S.FAILED: {E.IS_LOST},
    },
    S.STOPPED: {
        S.STARTING: {E.START},
        S.STOPPED: {E.RESIZE},
        S.DELETING: {E.DELETE, E.FORCE_DELETE},
        S.RUNNING: {E.IS_RUNNING},
        S.PAUSED: {E.IS_PAUSED},
    },
    S.STARTING: {
        S.STOPPING: {E.FORCE_STOP},
        S.DELETING: {E.DELETE, E.FORCE_DELETE},
        S.RUNNING: {E.IS_RUNNING},
        S.STOPPED: {E.IS_OFF},
        S.FAILED: {E.IS_LOST},
    },
    S.RUNNING: {
        S.STOPPING: {E.STOP, E.FORCE_STOP, E.RESTART},
        S.PAUSED: {E.PAUSE, E.IS_PAUSED},
        S.RUNNING: {E.RESET},
        S.DELETING: {E.FORCE_DELETE},
        S.STOPPED: {E.IS_OFF},
        S.FAILED: {E.IS_LOST},
    },
    S.PAUSED: {
        S.STOPPING: {E.STOP, E.FORCE_STOP},
        S.RUNNING: {E.RESUME, E.IS_RUNNING},
        S.DELETING: {E.FORCE_DELETE},
        S.STOPPED: {E.IS_OFF},
        S.FAILED: {E.IS_LOST},
    },
    S.STOPPING: {
        S.STOPPING: {E.FORCE_STOP},
        S.DELETING: {E.FORCE_DELETE},
        S.STARTING: {E.BOOT},
        S.RUNNING: {E.IS_RUNNING},
        S.PAUSED: {E.IS_PAUSED},
        S.STOPPED: {E.IS_OFF},
        S.FAILED: {E.IS_LOST},
    },
    S.FAILED: {
        S.STARTING: {E.START},
        S.STOPPING: {E.STOP, E.FORCE_STOP},
        S.DELETING: {E.DELETE, E.FORCE_DELETE},
        S.RUNNING: {E.IS_RUNNING},
        S.PAUSED: {E.IS_PAUSED},
    },
    S.DELETING: {
        S.RUNNING: {E.IS_RUNNING},
        S.PAUSED: {E.IS_PAUSED},
        S.STOPPED: {E.IS_OFF},
        S.FAILED: {E.IS_LOST},
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


def test_the_figure_in_the_docs_is_that_of_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == as_page(), (
        "python -m controller.domain.lifecycle > docs/lifecycle.md"
    )
