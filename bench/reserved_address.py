"""Time launch request → reserved address, as the first event tells it, against launch → usable guest."""

import argparse
import os
import statistics
import time
from typing import Any

from qcstack.demo.rest import EventStream, RestClient
from run import small_guest, stack

SPEC = {"image": "tiny", "vm": {"cpus": 1, "memory": "128M"}, "nics": [{"network": "qc0"}]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--launches", type=int, default=50)
    parser.add_argument("--booted", type=int, default=3, help="how many of them are started and waited for")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("launch → reserved address: not measured, the bridge network needs root")
        return
    to_address, to_ready = [], []
    with stack() as layout:
        rest = RestClient(layout.gateway_port, lambda _curl: None)
        rest.upload("/v1/images/tiny", small_guest(), lambda _done, _total: None)
        # The first one makes bridge, rules and dnsmasq.
        launch(rest, "bench-first", start=True)
        forget(rest, "bench-first")
        for number in range(arguments.launches):
            name = f"bench-{number}"
            boots = number < arguments.booted
            begin, address_s = launch(rest, name, start=boots)
            to_address.append(address_s)
            if boots:
                rest.call("GET", f"/v1/instances/{name}/wait?condition=Ready&timeout=120")
                to_ready.append(time.monotonic() - begin)
            forget(rest, name)
    median, slowest = (
        statistics.median(to_address),
        statistics.quantiles(to_address, n=100, method="inclusive")[98],
    )
    ready = statistics.median(to_ready)
    print(
        f"launch → reserved address: median {median * 1000:.1f} ms, p99 {slowest * 1000:.1f} ms "
        f"(of {len(to_address)}); launch → ready: {ready:.2f} s (median of {len(to_ready)}); "
        f"ratio {median / ready:.4f}"
    )


def launch(rest: RestClient, name: str, *, start: bool) -> tuple[float, float]:
    """Launch; return when, and the seconds until an event told the address."""
    events = rest.events()
    try:
        begin = time.monotonic()
        rest.call("POST", "/v1/instances", {"name": name, "start": start, **SPEC})
        return begin, told_within(events, name, begin)
    finally:
        events.close()


def told_within(events: EventStream, name: str, begin: float) -> float:
    for event in events:
        if event.get("instance") != name:
            continue
        if event["type"].startswith("instance.") and has_reserved(event["resource"]):
            return time.monotonic() - begin
        if event["type"] == "operation.finished":
            raise RuntimeError(f"no address was told: {event['resource']}")
    raise RuntimeError("the events ended")


def has_reserved(instance: dict[str, Any]) -> bool:
    return any(
        address["source"] == "reserved"
        for nic in instance["status"].get("nics", [])
        for address in nic.get("addresses", [])
    )


def forget(rest: RestClient, name: str) -> None:
    rest.call("DELETE", f"/v1/instances/{name}?force=true", wait_s=60)


if __name__ == "__main__":
    main()
