"""What was not there before is named."""

from pathlib import Path

from qcstack import host_snapshot


def test_a_new_file_is_left_and_a_kept_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    before = host_snapshot.take(tmp_path, without=("kept",))
    (tmp_path / "new").touch()
    (tmp_path / "kept-cache").touch()
    (tmp_path / "old").unlink()
    assert host_snapshot.take(tmp_path, without=("kept",)).left_since(before)["files"] == ["new"]
