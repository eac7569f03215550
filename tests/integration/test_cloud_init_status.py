"""What a guest's cloud-init tells is in the instance, however the guest lies about it."""

from typing import Any

from framework.cloud import Cloud
from framework.stack import eventually

# Files of the guest's own making: endless, of the wrong types, with what a terminal obeys.
USER_DATA = r"""#cloud-config
runcmd:
  - |
    stage='{"start": 1767225604, "finished": "never", "errors": [5, "\u001b[2Jlie", null]}'
    exec > /run/cloud-init/status.json
    printf '{"v1": {"datasource": [1], "init": %s, "modules-final": 7, "x": "' "$stage"
    head -c 20000 /dev/zero | tr '\0' A
    printf '"}}'
  - exit 3
"""


def test_a_lying_guest_is_shown_in_bounds_and_nothing_else_comes_of_it(cloud: Cloud) -> None:
    name = cloud.launch(cloudInit={"userdata": USER_DATA})["name"]
    cloud.wait_ready(name)

    def told() -> dict[str, Any] | None:
        found = cloud.get(name)["status"].get("cloudInit", {})
        return found if found.get("stages") else None

    found = eventually(told, "the guest has told of its cloud-init")
    assert found["state"] == "error"
    (stage,) = found["stages"]
    assert (stage["name"], stage["errors"]) == ("init", ["[2Jlie"])
    assert "finishTime" not in stage
    assert found["errors"][0] == "[2Jlie"
    condition = next(one for one in cloud.get(name)["status"]["conditions"] if one["type"] == "CloudInitDone")
    assert (condition["status"], condition["reason"]) == ("FALSE", "CLOUD_INIT_FAILED")
    cloud.delete(name)
