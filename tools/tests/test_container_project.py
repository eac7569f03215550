"""What a build is told about the host, and what an engine's end puts back."""

import re
import socket
import sys
from pathlib import Path

import pytest
from qcengine import base_images, debian, engine, footprint, project
from qcengine.errors import EngineError, MirrorUnknownError
from qcengine.project import Project
from qcstack import compose
from qcstack.__main__ import main as qcstack_main
from qcstack.compose import ComposeStack
from qcstack.layout import SERVICES


def test_pip_learns_index_and_trust_and_nothing_that_exists_on_the_host_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://packages.invalid/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "/somewhere")
    text = project.pip_configuration(trusted=True)
    assert "index-url = https://packages.invalid/simple" in text
    assert "cert = /run/secrets/ca" in text
    assert "/somewhere" not in text


def test_an_env_file_of_somebody_else_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _on_a_host(tmp_path, monkeypatch)
    (tmp_path / ".env").write_text("MINE=1\n", encoding="utf-8")
    with pytest.raises(EngineError, match="not written by this tool"):
        Project(tmp_path).prepare(print)
    assert (tmp_path / ".env").read_text(encoding="utf-8") == "MINE=1\n"


@pytest.mark.parametrize(
    ("version", "limit"), [("20.10.24+dfsg1", "1"), ("23.0.1", None), ("28.2.2", None), ("", "1")]
)
def test_compose_is_told_to_build_one_after_the_other_where_the_engine_knows_no_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, limit: str | None
) -> None:
    _on_a_host(tmp_path, monkeypatch, version)
    assert Project(tmp_path).prepare(print).get("COMPOSE_PARALLEL_LIMIT") == limit
    written = (tmp_path / ".env").read_text(encoding="utf-8")
    assert ("COMPOSE_PARALLEL_LIMIT=1\n" in written) == (limit is not None)


def _on_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str = "28.2.2") -> None:
    """Pretend a checkout in `tmp_path`, an engine, and a base image that is there."""
    monkeypatch.setattr(base_images, "provide", lambda *_, **__: base_images.OFFICIAL)
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '{version}'\n", encoding="ascii")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    (tmp_path / "services" / "vm-host" / "src").mkdir(parents=True)
    (tmp_path / "services" / "vm-host" / "Dockerfile").touch()


def test_an_engine_that_died_is_cleaned_up_before_another_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what it left would be taken for what the host had before."""
    done: list[str] = []
    monkeypatch.setattr(engine, "answers", lambda: False)
    monkeypatch.setattr(engine, "RUN", tmp_path)
    monkeypatch.setattr(engine, "_RECORD", tmp_path / "engine.json")
    (tmp_path / "engine.json").write_text("{}", encoding="ascii")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(engine, "stop", lambda *_, **__: done.append("stop"))

    def look() -> None:
        done.append("look")
        raise EngineError("far enough")

    monkeypatch.setattr("qcengine.footprint.Footprint.look", look)
    with pytest.raises(EngineError, match="far enough"):
        engine.start(tmp_path, print)
    assert done == ["stop", "look"]


def test_trixie_comes_from_the_mirrors_of_the_hosts_own_release(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = """\
bookworm|main|http://mirror.invalid/debian|Debian
bookworm|contrib|http://mirror.invalid/debian|Debian
bookworm-security|main|http://mirror.invalid/security|Debian
bookworm|main|http://other.invalid/tool|Other
"""
    monkeypatch.setattr(debian, "run", lambda _: offered)
    monkeypatch.setattr(debian, "host_suite", lambda: "bookworm")
    signed = f"deb [signed-by={debian.KEYRING}]"
    assert debian.trixie_sources() == [
        f"{signed} http://mirror.invalid/debian trixie main",
        f"{signed} http://mirror.invalid/security trixie-security main",
    ]


def test_a_host_without_a_mirror_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "run", lambda _: "")
    with pytest.raises(MirrorUnknownError):
        debian.trixie_sources()


def test_only_the_engines_own_rules_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [
        ":FORWARD DROP [0:0]",
        ":DOCKER-USER - [0:0]",
        "-A FORWARD -j DOCKER-USER",
        "-A FORWARD -i docker0 -o docker0 -j ACCEPT",
        "-A FORWARD -i eth0 -s 10.1.0.0/16 -j ACCEPT",
    ]
    commands: list[list[str]] = []
    monkeypatch.setattr(footprint, "_quietly", lambda command: commands.append(list(command)))
    footprint.restore_table("iptables", "filter", [":FORWARD ACCEPT [0:0]"], made)
    assert commands == [
        ["iptables", "-t", "filter", "-D", "FORWARD", "-j", "DOCKER-USER"],
        ["iptables", "-t", "filter", "-D", "FORWARD", "-i", "docker0", "-o", "docker0", "-j", "ACCEPT"],
        ["iptables", "-t", "filter", "-F", "DOCKER-USER"],
        ["iptables", "-t", "filter", "-X", "DOCKER-USER"],
        ["iptables", "-P", "FORWARD", "ACCEPT"],
    ]


def test_no_variable_of_the_project_is_a_setting_of_a_service() -> None:
    """Whoever exports what `.env` holds must still be able to start plain processes."""
    root = Path(__file__).parents[2]
    texts = [*root.glob("compose*.yaml"), Path(project.__file__), Path(compose.__file__)]
    variables = {
        name
        for text in texts
        for name in re.findall(r"(?:\$\{|\")(QC_[A-Z_]+)", text.read_text(encoding="utf-8"))
    }
    prefixes = tuple(f"QC_{name.upper().replace('-', '_')}_" for name in SERVICES)
    assert "QC_TAG_VM_HOST" in variables
    assert {name for name in variables if name.startswith(prefixes)} == set()


def test_a_build_that_missed_files_is_told_from_one_that_failed() -> None:
    assert compose.lost_files(
        'failed to solve: failed to compute cache key: "/requirements/x.txt" not found: not found'
    )
    assert not compose.lost_files(
        "failed to solve: process /bin/sh -c false did not complete successfully: 1"
    )


def test_a_taken_port_is_refused_before_anything_is_built(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compose, "lacking", lambda: None)
    monkeypatch.setattr(ComposeStack, "containers", lambda _stack: [])
    monkeypatch.setattr(ComposeStack, "build", lambda _stack, _say: pytest.fail("something was built"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setattr(sys, "argv", ["qcstack", "up", "--mode=compose", f"--port={port}"])
        assert qcstack_main() == 1
    assert f"127.0.0.1:{port} is taken" in capsys.readouterr().err
