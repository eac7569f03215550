"""The full Debian guest: launch → Ready through the API against the same argument list started by hand.

Both are first boots: the one by hand gets an overlay as empty as the launched one was. Ready is the agent's
first answer, which is what can be seen of a guest without our stack. Without a card, since a tap is
the runner's; on both sides the boot waits 20 s for a network that the guest does not have.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from qcstack.demo.rest import CallError, RestClient
from raw_qemu import argv_of, by_hand
from run import ROOT, ratio, stack

# A client's longest wait; a busy host without KVM may need several.
POLL_S = 280
WITHIN_S = 1800
SPEC = {
    "image": "debian",
    "vm": {"cpus": 2, "memory": "1G", "disk": "4G"},
    "nics": [],
    "readiness": {"all": [{"agent": {}}], "deadline": "600s"},
    "start": True,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="boots of each kind")
    arguments = parser.parse_args()
    guest = debian_guest()
    through, hand = [], []
    with stack() as layout, tempfile.TemporaryDirectory(dir="/var/tmp", prefix="qc-bench-") as scratch:
        rest = RestClient(layout.gateway_port, lambda _curl: None)
        rest.upload("/v1/images/debian", guest, lambda _done, _total: None)
        for number in range(arguments.rounds):
            name = f"debian-{number}"
            begin = time.monotonic()
            instance = rest.call("POST", "/v1/instances", {"name": name, **SPEC}, wait_s=60).body
            wait_ready(rest, name)
            through.append(time.monotonic() - begin)
            tell_phases(rest.call("GET", f"/v1/instances/{name}").body)
            argv = argv_of(instance["id"])
            rest.call("POST", f"/v1/instances/{name}/stop", {"force": True}, wait_s=60)
            begin_anew(argv)
            hand.append(by_hand(argv, Path(scratch))[1])
            rest.call("DELETE", f"/v1/instances/{name}", wait_s=60)
    ratio("full Debian guest, launch → Ready through the API", through, "the same QEMU by hand", hand)


def debian_guest() -> Path:
    """Build the full guest where it is not built, and return its image."""
    built = subprocess.run(
        [ROOT / "packer/guests/debian/build"],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return Path(built.stdout.splitlines()[-1])


def wait_ready(rest: RestClient, name: str) -> None:
    until = time.monotonic() + WITHIN_S
    while True:
        try:
            rest.call("GET", f"/v1/instances/{name}/wait?condition=Ready&timeout={POLL_S}")
        except CallError as exc:
            if exc.reason != "READINESS_TIMEOUT" or time.monotonic() > until:
                raise
        else:
            return


def begin_anew(argv: list[str]) -> None:
    """Put an empty overlay of the same size in the place of the guest's, whoever may read it."""
    blocks = [json.loads(word) for word in argv if word.startswith('{"driver":"')]
    nodes = {block["node-name"]: block for block in blocks if "node-name" in block}
    top, base = nodes["disk0-layer0"], nodes["disk0-layer1"]
    overlay, backing = (nodes[layer["file"]]["filename"] for layer in (top, base))
    told = subprocess.run(
        ["qemu-img", "info", "--output=json", overlay], check=True, stdout=subprocess.PIPE
    ).stdout
    size = str(json.loads(told)["virtual-size"])
    made = ["qemu-img", "create", "-q", "-f", top["driver"], "-b", backing, "-F", base["driver"]]
    subprocess.run([*made, overlay, size], check=True)


def tell_phases(instance: dict[str, Any]) -> None:
    for phase in instance["status"]["bootPhases"]:
        print(f"  {phase['name']:18} {phase['durationMs'] / 1000:7.2f} s")


if __name__ == "__main__":
    main()
