from datetime import UTC, datetime, timedelta
from pathlib import Path

from controller.operations import wall_clock_of
from controller.operations.clock import StepsBack
from operations_fakes import FakeClock

HOUR = timedelta(hours=1)
# Far more than a test takes, far less than an hour.
ABOUT = timedelta(minutes=20)


def test_a_clock_that_a_test_sets_is_ahead_by_what_its_file_says_and_right_without_it(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    clock = wall_clock_of({"QC_CLOCK_STEP_FILE": str(file)})
    for step_s, wanted in (("", timedelta()), ("3600.0", HOUR), ("-3600.0", -HOUR), ("", timedelta())):
        file.unlink(missing_ok=True)
        if step_s:
            file.write_text(step_s)
        assert abs(clock.now() - datetime.now(UTC) - wanted) < ABOUT


def test_without_the_variable_the_clock_is_the_hosts() -> None:
    assert abs(wall_clock_of({}).now() - datetime.now(UTC)) < ABOUT


def test_a_step_back_is_noticed_once_and_a_clock_that_runs_is_none() -> None:
    clock = FakeClock()
    steps = StepsBack(clock)
    clock.advance(3600)
    assert not steps.noticed()
    clock.wall += HOUR
    assert not steps.noticed()
    clock.wall -= timedelta(seconds=0.5)
    assert not steps.noticed()
    clock.wall -= timedelta(seconds=2)
    assert [steps.noticed(), steps.noticed()] == [True, False]
