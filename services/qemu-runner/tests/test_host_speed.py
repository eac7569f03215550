"""The host's speed: measured once, kept, measured anew when what is kept is not ours."""

import json
from pathlib import Path

import pytest
from qemu_runner.store import host_speed
from qemu_runner.store.host_speed import HostSpeed


@pytest.fixture(autouse=True)
def measurements(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Speeds to be measured, the next one first."""
    speeds = [0.5, 0.25]
    monkeypatch.setattr(host_speed, "measured", lambda: speeds.pop(0))
    return speeds


async def test_it_is_measured_once_and_kept_for_the_next_life(tmp_path: Path) -> None:
    speed = HostSpeed(tmp_path)
    assert [await speed.relative(), await speed.relative()] == [0.5, 0.5]
    assert await HostSpeed(tmp_path).relative() == 0.5


@pytest.mark.parametrize(
    "kept", ["", "[]", "{}", '{"measure": 1, "relative": "x"}', '{"measure": 0, "relative": 9}']
)
async def test_what_makes_no_sense_is_measured_anew(tmp_path: Path, kept: str) -> None:
    (tmp_path / "speed.json").write_text(kept)
    assert await HostSpeed(tmp_path).relative() == 0.5
    assert json.loads((tmp_path / "speed.json").read_text())["relative"] == 0.5


async def test_a_host_that_can_keep_nothing_is_measured_all_the_same(tmp_path: Path) -> None:
    assert await HostSpeed(tmp_path / "missing").relative() == 0.5


def test_a_measurement_is_a_positive_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert host_speed.measured() > 0
