"""Compare adding the 50th card on the bridge network (tap, rules, lease) with the first.

In a network namespace, as root. Bridge, tables and dnsmasq are made with the first card ever, which is told
apart.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from run import ROOT

sys.path.insert(0, str(ROOT / "services/qemu-runner/tests"))

from bridge_network_world import card, made_bench

LAST = 50
# 10.76.0.1 is the gateway's.
OFFSET = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often 50 cards are added and removed")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("50th card on the bridge: not measured, making network namespaces needs root")
        return
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="qc-bench-") as scratch:
        ever, first, last = measured(Path(scratch), arguments.rounds)
    one, other = statistics.median(last), statistics.median(first)
    print(
        f"tap, rules and lease of card {LAST}: {one * 1000:.1f} ms; of the first: {other * 1000:.1f} ms; "
        f"ratio {one / other:.2f} (medians of {arguments.rounds}); "
        f"with making bridge, tables and dnsmasq: {ever * 1000:.0f} ms"
    )


def measured(scratch: Path, rounds: int) -> tuple[float, list[float], list[float]]:
    """Return the seconds of the first card ever, and of the first and the last one of each round."""
    first, last = [], []
    with made_bench(scratch) as bench:
        service = bench.service

        def add(number: int) -> tuple[float, int]:
            begin = time.monotonic()
            _, descriptor = service.attach(card(number + OFFSET))
            return time.monotonic() - begin, descriptor

        def remove(number: int, descriptor: int) -> None:
            os.close(descriptor)
            service.call("detach", card(number + OFFSET).machine_id)

        ever, descriptor = add(0)
        remove(0, descriptor)
        for _ in range(rounds):
            added = [add(number) for number in range(LAST)]
            first.append(added[0][0])
            last.append(added[-1][0])
            for number, (_, descriptor) in enumerate(added):
                remove(number, descriptor)
        service.call("leave")
    return ever, first, last


if __name__ == "__main__":
    main()
