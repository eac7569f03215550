import re
from itertools import product
from pathlib import Path

import controller.operations
import pytest
from controller.operations import PublicState, State
from controller.operations.state import ACTIVE, FINISHED, TRANSITIONS, IllegalTransition, Trigger, next_state


@pytest.mark.parametrize(("state", "trigger"), list(product(State, Trigger)))
def test_every_pair_leads_where_the_table_says_or_is_refused(state: State, trigger: Trigger) -> None:
    if (state, trigger) in TRANSITIONS:
        assert next_state(state, trigger) is TRANSITIONS[state, trigger]
    else:
        with pytest.raises(IllegalTransition):
            next_state(state, trigger)


def test_nothing_leaves_a_finished_state() -> None:
    assert not {state for state, _ in TRANSITIONS} & FINISHED


def test_every_state_reaches_an_end() -> None:
    reach = set(FINISHED)
    while more := {state for (state, _), after in TRANSITIONS.items() if after in reach} - reach:
        reach |= more
    assert reach == set(State)


def test_a_state_is_active_finished_or_blocked() -> None:
    assert set(State) == ACTIVE | FINISHED | {State.BLOCKED}


def test_every_stored_state_has_one_public_word() -> None:
    assert {state for public in PublicState for state in public.stored} == set(State)


def test_the_engine_does_not_know_what_its_subjects_are() -> None:
    words = re.compile(r"\b(vms?|instances?|images?|machines?|qemu)\b", re.IGNORECASE)
    package = Path(controller.operations.__file__).parent
    assert [path.name for path in package.glob("*.py") if words.search(path.read_text())] == []
