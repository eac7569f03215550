"""The full Debian guest: built by this repository, launched, ready, and seen from inside."""

import pytest
from framework import guests
from framework.cloud import Cloud
from framework.stack import eventually

pytestmark = pytest.mark.full


def test_the_full_debian_guest_answers_its_agent_and_took_its_user_data(cloud: Cloud) -> None:
    cloud.upload("debian-12", guests.debian())
    name = cloud.launch(
        image="debian-12",
        vm={"cpus": 2, "memory": "1G", "disk": "4G"},
        cloudInit={
            "userdata": "#cloud-config\nwrite_files:\n  - path: /run/proof\n    content: from-user-data\n"
        },
        readiness={"all": [{"agent": {}}, {"cloudInit": "done"}], "deadline": "600s"},
    )["name"]
    ready = cloud.wait_ready(name, timeout_s=590)
    assert {one["status"] for one in ready["status"]["conditions"] if one["type"] == "CloudInitDone"} == {
        "TRUE"
    }
    # What the agent tells of the guest follows its first answer, which makes it Ready.
    guest = eventually(lambda: cloud.get(name)["status"].get("guest"), "the agent has told of the guest")
    assert guest["os"]["id"] == "debian"
    done = cloud.exec(name, "/usr/bin/cloud-init", "status", "--wait", timeout="300s")
    assert done["exitCode"] in {0, 2}, done
    phases = {phase["name"] for phase in cloud.get(name)["status"]["bootPhases"]}
    assert {"firmware", "kernel", "userspace", "cloud-init", "agent", "ready"} <= phases
    assert {f"cloud-init-{stage}" for stage in ("local", "network", "config", "final")} <= phases
    assert cloud.exec(name, "/bin/cat", "/run/proof")["stdout"] == "from-user-data"
    size = cloud.exec(name, "/bin/df", "--output=size", "-BM", "/")["stdout"].split()[-1]
    assert int(size.rstrip("M")) > 3000, "the root file system has grown with the disk"
    cloud.verb(name, "stop", timeout="120s")
    cloud.delete(name)
    assert cloud.api.request("DELETE", "/v1/images/debian-12").status_code == 204
