"""Time between the guest's own readiness and the answer of a `wait` that was begun before it.

The guest's own is when the byte that it prints once its server listens is in the host's console log; it is
looked for every millisecond, which is this bench's own error.
"""

import argparse
import statistics
import threading
import time
from pathlib import Path
from typing import Any

from qcstack.demo.rest import RestClient
from qcstack.layout import StackLayout
from run import small_guest, stack

MARK = "bench-serves"
PORT = 8080
USER_DATA = f"#cloud-config\nruncmd:\n  - httpd -p {PORT} -h / && echo && echo {MARK}\n"
CONTRACTS: dict[str, dict[str, Any]] = {
    "agent": {"agent": {}},
    "serial": {"serial": {"match": f"^{MARK}"}},
    "tcp": {"tcp": {"port": PORT}},
    "exec": {"exec": {"argv": ["/bin/nc", "-z", "127.0.0.1", str(PORT)]}},
}
# What a contract's own readiness is seen by.
MARKS = {"agent": "qcontroller-phase: agent "}
LOOK_EVERY_S = 0.001
WITHIN_S = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--launches", type=int, default=5, help="of each kind of probe")
    parser.add_argument("--kinds", nargs="+", choices=sorted(CONTRACTS), default=["serial", "tcp"])
    arguments = parser.parse_args()
    with stack() as layout:
        rest = RestClient(layout.gateway_port, lambda _curl: None)
        rest.upload("/v1/images/tiny", small_guest(), lambda _done, _total: None)
        for kind in arguments.kinds:
            tell(kind, [measured(layout, rest, kind, number) for number in range(arguments.launches)])


def measured(layout: StackLayout, rest: RestClient, kind: str, number: int) -> tuple[float, float]:
    """Launch a guest; return how long it took to be ready, and how much later the API called it so."""
    name = f"lag-{kind}-{number}"
    spec = {
        "name": name,
        "image": "tiny",
        "vm": {"cpus": 1, "memory": "128M"},
        "cloudInit": {"userdata": USER_DATA},
        "readiness": {"all": [CONTRACTS[kind]]},
        "start": True,
    }
    begun = time.monotonic()
    instance = rest.call("POST", "/v1/instances", spec, wait_s=60).body
    answered: list[float] = []

    def wait() -> None:
        RestClient(layout.gateway_port, lambda _curl: None).call(
            "GET", f"/v1/instances/{name}/wait?condition=Ready&timeout={WITHIN_S}"
        )
        answered.append(time.monotonic())

    waiting = threading.Thread(target=wait)
    waiting.start()
    console = layout.state / "runner" / "machines" / instance["id"] / "console.log"
    ready = printed_at(console, MARKS.get(kind, f"\n{MARK}").encode())
    waiting.join()
    rest.call("DELETE", f"/v1/instances/{name}?force=true", wait_s=60)
    (moment,) = answered
    return ready - begun, moment - ready


def printed_at(console: Path, mark: bytes) -> float:
    """Return when the guest's mark was in its console log."""
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        if mark in console.read_bytes():
            return time.monotonic()
        time.sleep(LOOK_EVERY_S)
    raise RuntimeError("the guest never said that it serves")


def tell(kind: str, found: list[tuple[float, float]]) -> None:
    lags = [lag for _, lag in found]
    median, boot = statistics.median(lags), statistics.median(boot for boot, _ in found)
    slowest = statistics.quantiles(lags, n=100, method="inclusive")[98] if len(lags) > 1 else median
    print(
        f"guest ready → API ready by {kind}: p50 {median * 1000:.0f} ms, p99 {slowest * 1000:.0f} ms "
        f"(of {len(lags)}); launch → guest ready: {boot:.2f} s; ratio {median / boot:.4f}"
    )


if __name__ == "__main__":
    main()
