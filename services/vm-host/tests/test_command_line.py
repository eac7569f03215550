"""The command line: exit codes that a supervisor and a health check rely on."""

from pathlib import Path

import pytest
from vm_host.__main__ import main
from vm_host_process import VmHostProcess


def test_a_ping_of_a_living_vm_host_exits_0(vm_host: VmHostProcess) -> None:
    assert main(["--ping", str(vm_host.socket_path)]) == 0


def test_a_ping_of_nobody_exits_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--ping", str(tmp_path / "x.sock")]) == 1
    assert "no hello" in capsys.readouterr().err


def test_a_faulty_configuration_exits_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(tmp_path / "x.json")]) == 1
    assert "x.json" in capsys.readouterr().err
