"""Log files stay bounded under writers that hold them open."""

from pathlib import Path

from qcstack import log_files


def test_a_file_beyond_the_limit_is_cut_and_its_end_kept(tmp_path: Path) -> None:
    path = tmp_path / "gateway.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"old" + b"x" * 10)
        log_files.bound([path], limit_bytes=10)
        writer.write(b"new")
    assert path.read_bytes() == b"new"
    assert path.with_name("gateway.log.1").read_bytes() == b"x" * 10


def test_a_file_within_the_limit_stays(tmp_path: Path) -> None:
    path = tmp_path / "gateway.log"
    path.write_bytes(b"x" * 10)
    log_files.bound([path, tmp_path / "missing.log"], limit_bytes=10)
    assert [entry.name for entry in tmp_path.iterdir()] == ["gateway.log"]
