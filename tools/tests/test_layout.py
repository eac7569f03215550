"""The configuration files that a native stack writes are what its services read."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from qcontroller.settings.v1 import settings_pb2
from qcstack.layout import LayoutError, StackLayout
from servicekit.settings import load_settings


@pytest.mark.parametrize(
    ("service", "message"),
    [
        ("gateway", settings_pb2.GatewaySettings()),
        ("controller", settings_pb2.ControllerSettings()),
        ("image-store", settings_pb2.ImageStoreSettings()),
        ("qemu-runner", settings_pb2.RunnerSettings()),
        ("vm-host", settings_pb2.VmHostSettings()),
    ],
)
def test_each_file_is_the_protojson_of_its_settings(short_tmp: Path, service: str, message: Message) -> None:
    layout = StackLayout(short_tmp)
    layout.create()
    load_settings(message, layout.config_file(service), env_prefix="QC_TEST_", environ={})
    assert json.loads(layout.config_file(service).read_text(encoding="utf-8"))


def test_sockets_are_closed_to_others_and_the_way_to_disks_is_passable(short_tmp: Path) -> None:
    layout = StackLayout(short_tmp / "state")
    layout.create()
    assert layout.state.stat().st_mode & 0o777 == 0o711
    assert (layout.state / "run").stat().st_mode & 0o077 == 0
    assert (layout.state / "controller").stat().st_mode & 0o077 == 0


def test_a_path_too_long_for_sockets_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    state = tmp_path / ("x" * 60)
    with pytest.raises(LayoutError, match="shorter"):
        StackLayout(state).create()
    assert not state.exists()


def test_a_directory_that_holds_other_things_is_neither_used_nor_cleaned(short_tmp: Path) -> None:
    (short_tmp / "thesis.tex").touch()
    short_tmp.chmod(0o755)
    layout = StackLayout(short_tmp)
    with pytest.raises(LayoutError, match=r"thesis\.tex"):
        layout.create()
    with pytest.raises(LayoutError, match=r"thesis\.tex"):
        layout.remove()
    assert [path.name for path in short_tmp.iterdir()] == ["thesis.tex"]
    assert short_tmp.stat().st_mode & 0o777 == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused(short_tmp: Path) -> None:
    os.chown(short_tmp, 12345, 12345)
    with pytest.raises(LayoutError, match="belongs to uid 12345"):
        StackLayout(short_tmp).create()


def test_cleaning_removes_what_a_stack_made_and_nothing_else(short_tmp: Path) -> None:
    layout = StackLayout(short_tmp)
    layout.create()
    (short_tmp / "notes").touch()
    layout.remove()
    assert [path.name for path in short_tmp.iterdir()] == ["notes"]


def test_cleaning_an_own_directory_removes_it(short_tmp: Path) -> None:
    layout = StackLayout(short_tmp / "state")
    layout.create()
    layout.remove()
    assert not layout.state.exists()


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"gateway_port": 8009}, "three different"),
        ({"gateway_port": 99999}, "1 to 65535"),
        ({"stop_grace": "forever"}, "grace period"),
    ],
)
def test_what_no_service_could_use_is_refused_here(
    short_tmp: Path, settings: dict[str, Any], fault: str
) -> None:
    with pytest.raises(LayoutError, match=fault):
        StackLayout(short_tmp / "state", **settings).create()
    assert not (short_tmp / "state").exists()


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A temporary directory by a short name: sockets have little room."""
    with tempfile.TemporaryDirectory(prefix="qc-layout-", dir="/tmp") as path:
        yield Path(path)
