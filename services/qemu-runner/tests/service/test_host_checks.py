"""What the doctor says of the clock and of the container engine, and what to do about it."""

from pathlib import Path

import pytest
from qemu_runner.service.host_checks import clock_check, host_checks, live_restore_check
from qemu_runner.user_network import CheckStatus


@pytest.mark.parametrize(
    ("state", "status"), [(0, CheckStatus.PASS), (5, CheckStatus.WARN), (None, CheckStatus.WARN)]
)
def test_a_clock_that_follows_nothing_is_a_warning(state: int | None, status: CheckStatus) -> None:
    check = clock_check(state)
    assert check.status is status
    assert bool(check.fix) is (status is not CheckStatus.PASS)


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ('{"live-restore": true}', CheckStatus.PASS),
        ('{"live-restore": false}', CheckStatus.WARN),
        ("[]", CheckStatus.WARN),
        ("not json", CheckStatus.WARN),
        (None, CheckStatus.WARN),
    ],
)
def test_an_engine_that_ends_containers_with_itself_is_a_warning(
    tmp_path: Path, settings: str | None, status: CheckStatus
) -> None:
    (tmp_path / "docker.sock").touch()
    if settings is not None:
        (tmp_path / "daemon.json").write_text(settings)
    assert live_restore_check(tmp_path / "docker.sock", tmp_path / "daemon.json").status is status


def test_without_an_engine_there_is_nothing_to_warn_of(tmp_path: Path) -> None:
    assert live_restore_check(tmp_path / "none", tmp_path / "none").status is CheckStatus.PASS


def test_from_inside_a_container_the_engine_is_not_taken_for_absent(tmp_path: Path) -> None:
    (tmp_path / ".dockerenv").touch()
    check = live_restore_check(tmp_path / "none", tmp_path / "none", [tmp_path / ".dockerenv"])
    assert check.status is CheckStatus.WARN
    assert "docker info" in check.fix


async def test_the_kernel_is_really_asked() -> None:
    assert [check.name for check in await host_checks()] == ["clock", "engine-live-restore"]
