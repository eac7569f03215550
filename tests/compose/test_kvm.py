"""The stack in containers on hosts without KVM, and with a device that is none: an engine sees such a /dev.

Needs root.
"""

from pathlib import Path
from typing import Any

import pytest
from framework.cloud import document
from framework.engine import engine_in
from framework.site import containers_site
from user_network_world import made_world

pytestmark = [pytest.mark.compose, pytest.mark.netns, pytest.mark.full]

# A copy of /dev without kvm, over the old one; what is mounted below it stays.
_OTHER_DEV = """
set -eu
new=$(mktemp -d)
mount -t tmpfs -o mode=755 none "$new"
for entry in /dev/*; do
  name=${entry#/dev/}
  if [ "$name" = kvm ]; then continue
  elif mountpoint -q "$entry" && [ -d "$entry" ]; then mkdir "$new/$name"; mount --rbind "$entry" "$new/$name"
  else cp -a "$entry" "$new/$name"
  fi
done
mount --move "$new" /dev
rmdir "$new"
"""
# It opens, and answers none of KVM's questions.
_NO_KVM_BEHIND_IT = "mknod -m 0666 /dev/kvm c 1 3\n"


@pytest.mark.parametrize(
    ("devices", "why"),
    [
        pytest.param(_OTHER_DEV, "/dev/kvm", id="without a device"),
        pytest.param(_OTHER_DEV + _NO_KVM_BEHIND_IT, "/dev/kvm", id="with a device that is none"),
    ],
)
def test_the_stack_starts_emulates_and_says_why(engine_data: Path, devices: str, why: str) -> None:
    commands = [["sh", "-c", devices]]
    with made_world() as world, engine_in(world, data=engine_data, devices=commands) as engine:
        engine.start()
        with containers_site(world, engine, accelerator="auto") as site:
            node: dict[str, Any] = document(
                site.inside(lambda: site.cloud.api.request("GET", "/v1/nodes/node-1"))
            )
            (kvm,) = [one for one in node["accelerators"] if one["name"] == "kvm"]
            assert (node["accelerator"], kvm["usable"]) == ("tcg", False)
            assert why in kvm["reason"], kvm
            guest = site.launch_ready("emulated")
            assert guest["status"]["accelerator"] == "tcg"
            site.delete("emulated")
