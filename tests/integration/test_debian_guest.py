"""The full Debian guest of this repository: launched once, ready by its contract, seen from inside."""

import hashlib
import itertools
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from framework import guests
from framework.cloud import Cloud, Document, document
from framework.stack import eventually

pytestmark = pytest.mark.full

USER_DATA = (
    "#cloud-config\n# kept as it is\nwrite_files:\n  - path: /run/proof\n    content: from-user-data\n"
)
CONTRACT = [
    {"agent": {}},
    {"cloudInit": "done"},
    {"tcp": {"port": 22}},
    {"serial": {"match": "login:"}},
]
STAGES = tuple(f"cloud-init-{stage}" for stage in ("local", "network", "config", "final"))
DISK_MIB = 4096
# Two minutes of a host of its own without KVM; busy hosts took ten.
READY_S = 1500
PASSWORD = "correct horse battery staple"
# Says whether the password on its standard input is the user's.
CHECK_PASSWORD = (
    "import crypt, spwd, sys; kept = spwd.getspnam('debian').sp_pwdp; "
    "print(crypt.crypt(sys.stdin.read(), kept) == kept)"
)
BEATS = "while [ -e /root/beating ]; do date +%s.%N >> /root/beats; sleep 0.2; done"


@dataclass(frozen=True, slots=True)
class Debian:
    """The guest of this module, which all its tests share in the order in which they stand here."""

    cloud: Cloud
    name: str
    ready: Document

    def shell(self, script: str, **more: object) -> str:
        """Return what a shell of the guest prints."""
        answer = self.cloud.exec(self.name, "/bin/sh", "-c", script, **more)
        assert answer["exitCode"] == 0, answer
        return str(answer["stdout"])

    def call(self, method: str, below: str, **more: Any) -> httpx.Response:
        """Send a request below the instance."""
        return self.cloud.api.request(method, f"/v1/instances/{self.name}/{below}", **more)

    @property
    def address(self) -> str:
        """Where the guest is reached."""
        return str(self.ready["status"]["nics"][0]["addresses"][0]["address"])

    def clock_error_s(self) -> float:
        """Return how far the guest's clock is from the host's, at most."""
        before = time.time()
        theirs = float(self.shell("date +%s.%N"))
        return max(abs(theirs - before), abs(time.time() - theirs))


@pytest.fixture(scope="module")
def debian(cloud: Cloud) -> Iterator[Debian]:
    """The guest, Ready by the whole contract, on a disk twice as large as its image."""
    cloud.upload("debian-12", guests.debian())
    name = cloud.launch(
        image="debian-12",
        vm={"cpus": 2, "memory": "1G", "disk": f"{DISK_MIB}M"},
        cloudInit={"userdata": USER_DATA},
        readiness={"all": CONTRACT, "deadline": "600s"},
    )["name"]
    try:
        yield Debian(cloud, name, cloud.wait_ready(name, timeout_s=READY_S))
    finally:
        cloud.delete(name)
        assert cloud.api.request("DELETE", "/v1/images/debian-12").status_code == 204


def test_it_is_ready_by_agent_cloud_init_ssh_and_the_prompt_of_its_console(debian: Debian) -> None:
    conditions = {one["type"]: one["status"] for one in debian.ready["status"]["conditions"]}
    assert {conditions[kind] for kind in ("Ready", "AgentConnected", "CloudInitDone")} == {"TRUE"}
    assert debian.ready["readiness"]["all"] == CONTRACT
    # And so it is inside: cloud-init is over, without an error, and ssh's server runs.
    result = json.loads(debian.shell("cat /run/cloud-init/result.json"))
    assert (result["v1"]["errors"], result["v1"]["datasource"][:17]) == ([], "DataSourceNoCloud")
    assert debian.shell("systemctl is-active ssh") == "active\n"


def test_the_user_data_arrived_byte_for_byte_and_did_what_it_says(debian: Debian) -> None:
    kept = debian.call("GET", "files", params={"path": "/var/lib/cloud/instance/user-data.txt"})
    assert kept.content == USER_DATA.encode()
    assert debian.shell("cat /run/proof") == "from-user-data"
    # Nor does what the image says itself break cloud-init's schema.
    assert debian.shell("grep -c 'Invalid cloud-config' /var/log/cloud-init.log || :") == "0\n"


def test_its_boot_is_told_in_phases_one_after_the_other(debian: Debian) -> None:
    phases = {phase["name"]: phase for phase in debian.cloud.get(debian.name)["status"]["bootPhases"]}
    assert {"firmware", "kernel", "userspace", "network", "cloud-init", "agent", "ready"} <= set(phases)
    in_order = ["firmware", "kernel", "userspace", *STAGES]
    begins = [moment(phases[name]["startTime"]) for name in in_order]
    assert begins == sorted(begins), phases
    assert all(phase["durationMs"] >= 0 for phase in phases.values())
    # A stage ends where the next one begins; to a millisecond, in which durations are told.
    for name, following in zip(STAGES, begins[4:], strict=False):
        assert abs(ended(phases[name]) - following) <= 0.002, name
    assert abs(ended(phases["cloud-init-final"]) - ended(phases["cloud-init"])) <= 0.002
    # What an emulated Debian cannot do in no time, and what none takes hours for.
    assert all(phases[name]["durationMs"] > 0 for name in ("kernel", "userspace", "cloud-init"))
    assert moment(debian.ready["createTime"]) <= begins[0]
    assert ended(phases["ready"]) <= datetime.now(UTC).timestamp()


def test_its_root_file_system_has_grown_with_the_disk(debian: Debian) -> None:
    size = debian.shell("df --output=size -BM /").split()[-1]
    assert int(size.rstrip("M")) > DISK_MIB * 0.8
    assert int(debian.shell("cat /sys/block/vda/size")) * 512 == DISK_MIB * 2**20


def test_its_report_tells_system_filesystems_load_and_memory(debian: Debian) -> None:
    report = document(debian.call("GET", "guest"))
    assert (report["os"]["id"], report["os"]["version"]) == ("debian", "12 (bookworm)")
    assert report["os"]["kernelRelease"] == debian.shell("uname -r").strip()
    assert report["hostname"] == debian.shell("hostname").strip()
    (root,) = [one for one in report["filesystems"] if one["mountpoint"] == "/"]
    assert (root["type"], root["totalBytes"] > DISK_MIB * 0.75 * 2**20) == ("ext4", True)
    assert 0 < root["usedBytes"] < root["totalBytes"]
    assert debian.address in [a["address"] for card in report["interfaces"] for a in card["addresses"]]
    assert report["timeZone"]["offsetSeconds"] == 0
    assert report["memory"]["totalBytes"] > 2**29
    status = eventually(
        lambda: debian.cloud.get(debian.name)["status"].get("guest"), "the agent has told of the guest"
    )
    assert status["os"]["id"] == "debian"


def test_a_program_gets_its_environment_and_its_input(debian: Debian) -> None:
    answer = debian.cloud.exec(
        debian.name, "/bin/sh", "-c", "cat; echo $WHO >&2; exit 7", env={"WHO": "me"}, stdin="grüße"
    )
    assert (answer["exitCode"], answer["stdout"], answer["stderr"]) == (7, "grüße", "me\n")


def test_a_file_comes_and_goes_with_its_mode_and_owner(debian: Debian) -> None:
    content = os.urandom(3 * 2**20 + 7)
    where = {"path": "/home/debian/blob"}
    pushed = debian.call(
        "PUT",
        "files",
        params={**where, "mode": "0640", "owner": "debian:adm"},
        content=content,
        headers={"Content-Type": "application/octet-stream"},
    )
    assert pushed.status_code == 200, pushed.text
    assert document(pushed)["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert debian.shell("stat -c '%a %U:%G %s' /home/debian/blob") == f"640 debian:adm {len(content)}\n"
    pulled = debian.call("GET", "files", params=where)
    assert pulled.content == content
    assert (pulled.headers["Guest-File-Mode"], pulled.headers["Guest-File-Owner"]) == ("0640", "debian:adm")
    assert debian.shell("ls -A /home/debian | grep -c qcontroller || :") == "0\n"


def test_a_write_stands_still_while_the_guest_is_frozen_and_goes_on_when_the_time_is_over(
    debian: Debian,
) -> None:
    debian.shell(f"touch /root/beating /root/beats; ({BEATS}) </dev/null >/dev/null 2>&1 &")
    eventually(lambda: debian.shell("wc -l < /root/beats") != "0\n", "the guest writes")
    frozen = debian.call("POST", "guest/freeze", json={"timeout": "6s"})
    assert frozen.status_code == 200, frozen.text
    assert document(frozen)["filesystems"] > 0
    refused = debian.call("POST", "exec", json={"argv": ["/bin/true"]})
    assert (refused.status_code, document(refused)["reason"]) == (409, "GUEST_AGENT_REFUSED")
    eventually(answers(debian), "the guest is thawed without being told")
    beats = [float(line) for line in debian.shell("rm /root/beating; cat /root/beats").split()]
    longest, begin = max((later - earlier, earlier) for earlier, later in itertools.pairwise(beats))
    assert longest > 4, f"nothing was written while it was frozen: {beats}"
    assert moment(document(frozen)["thawTime"]) >= begin + 4


def test_a_thaw_ends_a_freeze(debian: Debian) -> None:
    frozen = document(debian.call("POST", "guest/freeze", json={"timeout": "120s"}))
    thawed = debian.call("POST", "guest/thaw")
    assert (thawed.status_code, document(thawed)["filesystems"]) == (200, frozen["filesystems"])
    assert debian.shell("date > /root/after-thaw; echo written") == "written\n"
    assert document(debian.call("POST", "guest/thaw"))["filesystems"] == 0


def test_a_password_that_is_set_is_the_users(debian: Debian) -> None:
    argv = ("/usr/bin/python3", "-W", "ignore", "-c", CHECK_PASSWORD)
    assert debian.cloud.exec(debian.name, *argv, stdin=PASSWORD)["stdout"] == "False\n"
    changed = debian.call("POST", "guest/password", json={"user": "debian", "password": PASSWORD})
    assert changed.status_code == 204, changed.text
    assert debian.cloud.exec(debian.name, *argv, stdin=PASSWORD)["stdout"] == "True\n"
    nobody = debian.call("POST", "guest/password", json={"user": "nobody-here", "password": PASSWORD})
    assert (nobody.status_code, document(nobody)["reason"]) == (409, "GUEST_AGENT_REFUSED")


def test_an_authorised_key_lets_its_owner_in_who_is_then_told_as_logged_in(
    debian: Debian, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    public = key.with_suffix(".pub").read_text(encoding="ascii").strip()
    ssh = [
        *("ssh", "-F", "/dev/null", "-i", str(key), "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"),
        *("-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={tmp_path}/hosts"),
        f"debian@{debian.address}",
    ]
    stranger = subprocess.run([*ssh, "true"], capture_output=True, text=True, check=False, timeout=120)
    assert "Permission denied" in stranger.stderr
    body = {"user": "debian", "keys": [public]}
    for _ in range(2):
        assert debian.call("POST", "guest/ssh-keys", json=body).status_code == 204
    lines = debian.shell("cat /home/debian/.ssh/authorized_keys").splitlines()
    assert lines.count(public) == 1
    mode = debian.shell("stat -c '%a %U:%G' /home/debian/.ssh/authorized_keys").strip()
    assert mode == "600 debian:debian"
    with subprocess.Popen(
        [*ssh, "-tt", "id -un; cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as session:
        try:
            assert session.stdout is not None
            assert session.stdout.readline().strip() == b"debian"
            users = document(debian.call("GET", "guest"))["users"]
            assert "debian" in [user["name"] for user in users]
        finally:
            session.kill()


def test_its_clock_is_right_again_after_a_pause(debian: Debian) -> None:
    assert debian.clock_error_s() < 3
    debian.cloud.verb(debian.name, "pause")
    until = time.monotonic() + 8
    eventually(lambda: time.monotonic() > until, "it has missed some time")
    debian.cloud.verb(debian.name, "resume")
    eventually(lambda: debian.clock_error_s() < 3, "the guest's clock has caught up")


def test_no_unit_has_failed(debian: Debian) -> None:
    # A starved guest's units run out of their time, which says something of the host alone.
    told = debian.shell(
        "systemctl --failed --no-legend --plain | while read -r unit rest; do "
        "echo $unit $(systemctl show -P Result $unit); done"
    )
    assert [line for line in told.splitlines() if not line.endswith(" timeout")] == []


def test_its_power_button_works(debian: Debian) -> None:
    stopped = debian.cloud.verb(debian.name, "stop", wait_s=150, timeout="120s")
    assert (stopped["status"]["state"], stopped["desiredPower"]) == ("STOPPED", "STOPPED")


def answers(debian: Debian) -> Callable[[], bool]:
    """Return what tells whether the guest does something again."""
    return lambda: debian.call("POST", "exec", json={"argv": ["/bin/true"]}).status_code == 200


def moment(text: str) -> float:
    """Return a time of the API in seconds of the epoch."""
    return datetime.fromisoformat(text).timestamp()


def ended(phase: Document) -> float:
    """Return when a boot phase ended."""
    return moment(phase["startTime"]) + float(phase["durationMs"]) / 1000
