"""What the full Debian guest's cloud-init tells of a user-data that fails, seen in the instance."""

from typing import Any

import pytest
from framework import guests
from framework.cloud import Cloud
from framework.stack import eventually

pytestmark = pytest.mark.full

# A module that fails, a program that fails, and a key that the schema does not know.
USER_DATA = """#cloud-config
runcmd:
  - [sh, -c, "exit 3"]
write_files:
  - path: /run/proof
    contnt: canary-of-a-value
ntp: canary-of-another-value
"""


def test_failed_modules_and_faults_of_the_schema_are_in_the_instance(cloud: Cloud) -> None:
    cloud.upload("debian-12", guests.debian())
    name = cloud.launch(
        image="debian-12",
        vm={"cpus": 2, "memory": "1G", "disk": "4G"},
        cloudInit={"userdata": USER_DATA},
        readiness={"all": [{"agent": {}}], "deadline": "1800s"},
    )["name"]
    cloud.wait_ready(name, timeout_s=1790)

    def told() -> dict[str, Any]:
        found = cloud.get(name)["status"].get("cloudInit", {})
        return found if found.get("failedModules") else {}

    found = eventually(told, "cloud-init has told how it ended", timeout_s=1200)
    assert found["state"] == "error"
    assert {stage["name"] for stage in found["stages"]} >= {
        "init-local",
        "init",
        "modules-config",
        "modules-final",
    }
    assert all("finishTime" in stage for stage in found["stages"])
    assert set(found["failedModules"]) == {"ntp", "scripts-user"}
    assert any("Invalid cloud-config" in warning for warning in found["warnings"])
    condition = next(one for one in cloud.get(name)["status"]["conditions"] if one["type"] == "CloudInitDone")
    assert (condition["status"], condition["reason"]) == ("FALSE", "CLOUD_INIT_FAILED")
    assert condition["message"].startswith("Failed modules: ")

    # The schema is a program of the guest's: it follows.
    faults = eventually(
        lambda: cloud.get(name)["status"]["cloudInit"]["schemaErrors"],
        "the schema has been asked",
        timeout_s=400,
    )
    assert any(fault.startswith("write_files.0") for fault in faults)
    assert any(fault.startswith("ntp") for fault in faults)
    assert "canary" not in str(cloud.get(name))
    cloud.verb(name, "stop", force=True)
    cloud.delete(name)
