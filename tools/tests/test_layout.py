"""The configuration files that a native stack writes are what its services read."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A temporary directory by a short name: sockets have little room."""
    with tempfile.TemporaryDirectory(prefix="qc-layout-", dir="/tmp") as path:
        yield Path(path)
