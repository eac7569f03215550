"""The script that CI users copy, run as it is: its result is the command's, and nothing stays."""

import os
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml
from framework import guests
from framework.stack import free_ports
from qcstack.free_bridge import choose_bridge

pytestmark = pytest.mark.native("the script brings up a stack of its own")

EXAMPLES = guests.ROOT / "examples" / "ci"
_LONG_S = 600


def job(artifacts: Path, script: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run the example with a command for the guest, on ports and a bridge of its own."""
    gateway, controller, image_store = map(str, free_ports(3))
    bridge = choose_bridge()
    # What this test's own make was told is not for the script's.
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        [EXAMPLES / "run", guests.tiny(), "/bin/sh", "-c", script, *words],
        env={
            **own,
            "MODE": "native",
            "STOP_GRACE": "5s",
            "VM": '{"memory": "256M"}',
            "PORT": gateway,
            "CONTROLLER_PORT": controller,
            "IMAGE_STORE_PORT": image_store,
            "BRIDGE": bridge.name,
            "BRIDGE_SUBNET": bridge.subnet,
            "ARTIFACTS": str(artifacts),
        },
        capture_output=True,
        text=True,
        timeout=_LONG_S,
        check=False,
    )


def assert_nothing_stays(said: str) -> None:
    """The script's last word names its state directory: it is gone, and so is whatever ran from it."""
    *_, last = said.splitlines()
    state = last.removeprefix("removed ")
    assert state.startswith("/var/tmp/qc-ci."), said
    assert not Path(state).exists()
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert state.encode() not in command.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue


def test_a_job_that_succeeds_gives_the_commands_output_and_leaves_nothing(tmp_path: Path) -> None:
    # The words reach the guest as they are: none of them is read by a shell of the host.
    done = job(tmp_path, 'printf "%s|" "$0" "$@"; test -e /dev/virtio-ports', "$(id)", "it's", 'a "b"\nc')
    assert (done.returncode, done.stdout) == (0, '$(id)|it\'s|a "b"\nc|'), done.stderr
    assert list(tmp_path.iterdir()) == []
    assert_nothing_stays(done.stderr)


def test_a_job_that_fails_keeps_the_evidence_and_leaves_nothing_else(tmp_path: Path) -> None:
    done = job(tmp_path, "echo broken >&2; exit 7")
    assert done.returncode == 7, done.stderr
    assert "broken" in done.stderr
    (bundle,) = tmp_path.glob("op-*.tar.gz")
    with tarfile.open(bundle) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"operation.json", "now/instance.json", "now/console.log"} <= names
    assert "Linux version" in (tmp_path / "console.log").read_text(errors="replace")
    assert (tmp_path / "log" / "controller.log").exists()
    assert_nothing_stays(done.stderr)


def test_a_job_without_a_command_says_how_it_is_called() -> None:
    done = subprocess.run([EXAMPLES / "run"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


def test_the_workflow_runs_the_script_and_keeps_the_evidence() -> None:
    workflow = yaml.safe_load((EXAMPLES / "github-actions.yml").read_text())
    steps = workflow["jobs"]["vm"]["steps"]
    (tests,) = (step for step in steps if "examples/ci/run" in step.get("run", ""))
    (kept,) = (step for step in steps if "upload-artifact" in step.get("uses", ""))
    assert tests["env"]["ARTIFACTS"].endswith("/" + kept["with"]["path"])
    assert kept["if"] == "failure()"


def test_shellcheck_has_nothing_to_say_of_the_script() -> None:
    done = subprocess.run(["shellcheck", EXAMPLES / "run"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
