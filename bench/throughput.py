"""Compare TCP throughput host → guest and guest → host on the bridge network with passt's, in real guests.

The host connects both times: a guest cannot reach it.
"""

import argparse
import os
import socket
from functools import partial

from qcstack.demo.rest import RestClient
from run import MIB, free_ports, small_guest, stack, timed

BLOCK = 64 * 1024
TIMEOUT_S = 120
LOOPBACK = "127.0.0.1"
# busybox's nc serves one connection, so each transfer has a server of its own. The reader tells when it has
# read all, so that what lies in buffers is not counted; the writer waits for a byte, as an old passt tells of
# a client only when that speaks.
READER = "nc -l -p {port} -e /bin/sh -c 'dd of=/dev/null bs={block} iflag=fullblock count={count}; echo'"
WRITER = "nc -l -p {port} -e /bin/sh -c 'head -c 1 >/dev/null; exec dd if=/dev/zero bs={block} count={count}'"
FIRST_READER, FIRST_WRITER = 5100, 5200
ADDRESSED = "until ip -4 addr show dev eth0 | grep -q 'inet '; do usleep 50000; done"
LISTENED = "until grep -q ':{port:04X} ' /proc/net/tcp /proc/net/tcp6; do usleep 50000; done"


Address = tuple[str, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=32, help="how much is sent each time")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("TCP on the bridge against passt: not measured, the bridge network needs root")
        return
    mib, rounds = arguments.mib, arguments.rounds
    into: dict[str, float] = {}
    out: dict[str, float] = {}
    with stack() as layout:
        rest = RestClient(layout.gateway_port, lambda _curl: None)
        rest.upload("/v1/images/tiny", small_guest(), lambda _done, _total: None)
        # One guest at a time: two would share the processors.
        for network in ("qc0", "user"):
            readers, writers = launch(rest, network, mib, rounds)
            into[network] = mib / min(timed(partial(send, at, mib)) for at in readers)
            out[network] = mib / min(timed(partial(receive, at, mib)) for at in writers)
            rest.call("DELETE", f"/v1/instances/bench-{network}?force=true", wait_s=60)
    for direction, rates in (("host → guest", into), ("guest → host", out)):
        print(
            f"TCP {direction} on the bridge: {rates['qc0']:.0f} MiB/s; through passt: "
            f"{rates['user']:.0f} MiB/s; ratio {rates['qc0'] / rates['user']:.2f} (best of {rounds})"
        )


def launch(rest: RestClient, network: str, mib: int, rounds: int) -> tuple[list[Address], list[Address]]:
    """Launch a guest with the servers in it; on the bridge its own address is used, as a host would."""
    readers = range(FIRST_READER, FIRST_READER + rounds)
    writers = range(FIRST_WRITER, FIRST_WRITER + rounds)
    published = (
        {} if network == "qc0" else dict(zip((*readers, *writers), free_ports(2 * rounds), strict=True))
    )
    path = f"/v1/instances/bench-{network}"
    body = {
        "name": f"bench-{network}",
        "image": "tiny",
        "vm": {"cpus": 1, "memory": "256M"},
        "nics": [{"network": network}],
        "ports": [{"host": host, "guest": guest} for guest, host in published.items()],
        "start": True,
    }
    rest.call("POST", "/v1/instances", body, wait_s=60)
    instance = rest.call("GET", f"{path}/wait?condition=Ready&timeout=120").body
    script = servers(readers, writers, mib * MIB // BLOCK)
    answer = rest.call("POST", f"{path}/exec", {"argv": ["/bin/sh", "-c", script], "timeout": "60s"}).body
    if answer["exitCode"]:
        raise RuntimeError(f"the guest does not serve: {answer}")
    if published:
        return [(LOOPBACK, published[one]) for one in readers], [
            (LOOPBACK, published[one]) for one in writers
        ]
    address = instance["status"]["nics"][0]["addresses"][0]["address"]
    return [(address, one) for one in readers], [(address, one) for one in writers]


def servers(readers: range, writers: range, count: int) -> str:
    """Return a script that starts the guest's servers and ends when they listen."""
    lines = [ADDRESSED]
    for command, ports in ((READER, readers), (WRITER, writers)):
        for port in ports:
            lines.append(
                command.format(port=port, block=BLOCK, count=count) + " >/dev/null 2>&1 </dev/null &"
            )
            lines.append(LISTENED.format(port=port))
    return "\n".join(lines)


def send(to: Address, mib: int) -> None:
    with socket.create_connection(to, timeout=TIMEOUT_S) as connection:
        block = bytes(MIB)
        for _ in range(mib):
            connection.sendall(block)
        if not connection.recv(1):
            raise RuntimeError(f"{to} hung up before it had read all")


def receive(source: Address, mib: int) -> None:
    with socket.create_connection(source, timeout=TIMEOUT_S) as connection:
        connection.sendall(b"\n")
        buffer = bytearray(MIB)
        left = mib * MIB
        while left:
            got = connection.recv_into(buffer)
            if not got:
                raise RuntimeError(f"{source} hung up, {left} bytes were missing")
            left -= got


if __name__ == "__main__":
    main()
