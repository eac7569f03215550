"""The table of boot phases that the demo shows."""

from qcstack.demo.run import boot_table

PHASES = [
    {"name": "userspace", "startTime": "2026-01-01T00:00:02.500000Z", "durationMs": 400},
    {"name": "kernel", "startTime": "2026-01-01T00:00:01Z", "durationMs": 1500},
]


def test_phases_stand_in_the_order_in_which_they_began() -> None:
    _, *rows = boot_table(PHASES)
    assert [row.split() for row in rows] == [
        ["kernel", "0.00", "s", "1.50", "s"],
        ["userspace", "1.50", "s", "0.40", "s"],
    ]


def test_a_guest_that_told_nothing_has_no_table() -> None:
    assert boot_table([]) == []
