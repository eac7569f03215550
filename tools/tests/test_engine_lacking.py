"""What is said of a host that cannot run containers; asked of the programs, not of their being installed."""

import os
from pathlib import Path

import pytest
from qcstack import compose

FAILS_ON = '#!/bin/sh\n[ "$1" = {word} ] && exit 1\nexit 0\n'


def put_docker(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = folder / "docker"
    docker.write_text(script, encoding="utf-8")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), "/usr/bin", "/bin"]))


@pytest.mark.parametrize(
    ("word", "said"),
    [("info", "no Docker engine answers"), ("compose", "Compose v2"), ("buildx", "buildx")],
)
def test_what_an_engine_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, said: str
) -> None:
    put_docker(tmp_path, FAILS_ON.format(word=word), monkeypatch)
    assert said in str(compose.lacking())


def test_a_whole_engine_lacks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_docker(tmp_path, "#!/bin/sh\nexit 0\n", monkeypatch)
    assert compose.lacking() is None


def test_a_host_without_the_client_is_told_as_one_without_an_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compose.lacking() == "no Docker engine answers"
