import signal
from pathlib import Path

import pytest
from servicekit.failpoints import fail_points_of


@pytest.mark.parametrize(("what", "signal_number"), [("", signal.SIGKILL), (" freeze", signal.SIGSTOP)])
def test_a_fail_point_acts_once_and_at_the_moment_that_its_file_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, signal_number: int
) -> None:
    sent: list[int] = []
    monkeypatch.setattr("servicekit.failpoints.os.kill", lambda pid, how: sent.append(how))
    file = tmp_path / "moment"
    reached = fail_points_of({"QC_FAIL_POINT_FILE": str(file)})
    reached("settle.before_commit")
    file.write_text(f"settle.before_commit{what}\n")
    reached("settle.after_commit")
    assert sent == []
    reached("settle.before_commit")
    reached("settle.before_commit")
    assert sent == [signal_number]


def test_without_the_variable_moments_are_passed_by() -> None:
    fail_points_of({})("settle.before_commit")


def test_a_moment_that_is_taken_back_while_it_is_read_is_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    monkeypatch.setattr("servicekit.failpoints.os.kill", lambda pid, how: sent.append(how))
    file = tmp_path / "moment"
    file.write_text("settle.before_commit")
    read = Path.read_text

    def taken_back(path: Path, **options: str) -> str:
        text = read(path, **options)
        path.unlink()
        return text

    monkeypatch.setattr(Path, "read_text", taken_back)
    fail_points_of({"QC_FAIL_POINT_FILE": str(file)})("settle.before_commit")
    assert sent == []
