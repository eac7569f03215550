"""Who is due when: replaced, dropped, and told once."""

from datetime import UTC, datetime, timedelta

from controller.policies.agenda import Agenda, Key

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def test_those_who_are_due_are_told_once_and_stay_reached() -> None:
    agenda = Agenda()
    agenda.put(Key("a", "restart"), NOON, 5.0)
    agenda.put(Key("b", "restart"), NOON, 9.0)
    assert agenda.pop_due(5.0) == {"a"}
    assert agenda.pop_due(5.0) == set()
    assert agenda.reached(Key("a", "restart"), 5.0, NOON)
    assert agenda.first() == 9.0


def test_the_same_stamp_keeps_its_time_and_another_one_replaces_it() -> None:
    agenda = Agenda()
    agenda.put(Key("a", "restart"), NOON, 5.0)
    agenda.put(Key("a", "restart"), NOON, 7.0)
    assert agenda.first() == 5.0
    agenda.put(Key("a", "restart"), NOON + timedelta(seconds=1), 7.0)
    assert agenda.pop_due(6.0) == set()
    assert agenda.pop_due(7.0) == {"a"}


def test_what_is_dropped_is_not_due() -> None:
    agenda = Agenda()
    agenda.put(Key("a", "restart"), NOON, 5.0)
    agenda.drop(Key("a", "restart"))
    assert agenda.first() is None
    assert not agenda.reached(Key("a", "restart"), 9.0, NOON)


def test_the_heap_does_not_grow_with_entries_that_are_put_anew() -> None:
    agenda = Agenda()
    for number in range(10_000):
        agenda.put(Key("a", "restart"), None, float(number))
    assert len(agenda) == 1
    assert agenda.size < 200
    assert agenda.pop_due(1e9) == {"a"}
