"""What was not there before is named."""

from pathlib import Path

from qcstack import host_snapshot
from qcstack.layout import StackLayout


def test_a_new_file_is_left_and_a_kept_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    before = host_snapshot.take(tmp_path, without=("kept",))
    (tmp_path / "new").touch()
    (tmp_path / "kept-cache").touch()
    (tmp_path / "old").unlink()
    assert host_snapshot.take(tmp_path, without=("kept",)).left_since(before)["files"] == ["new"]


def test_what_goes_with_a_running_stack_is_not_left_behind_by_its_instances(tmp_path: Path) -> None:
    layout = StackLayout(tmp_path, bridge="qc-0a1b2c")
    left = {
        "links": ["qc-0a1b2c", "qc0123456789-0"],
        "processes": [
            f"7 /usr/sbin/dnsmasq --interface={layout.bridge}",
            "8 /usr/sbin/dnsmasq --interface=br0",
        ],
        "rules": ["table inet qcontroller_bridge_0a1b2c3d"],
        "switches": ["conf/eth0/forwarding=1"],
        "files": ["runner/machines/x"],
    }
    assert host_snapshot.without_the_stacks_own(left, layout) == {
        "links": ["qc0123456789-0"],
        "processes": ["8 /usr/sbin/dnsmasq --interface=br0"],
        "files": ["runner/machines/x"],
    }


def test_what_the_host_forwards_is_looked_at() -> None:
    switches = host_snapshot.take().things["switches"]
    assert all(name.startswith(("ip_forward=", "conf/")) for name in switches)
