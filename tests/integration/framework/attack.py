"""What a guest tries against its host: to connect everywhere, and packets that no decent kernel sends."""

from collections.abc import Iterable

# Makes the guest's kernel send packets for the loopback network to its gateway instead of itself.
HOSTILE = """
gateway=$(ip route | awk '/^default/ {print $3; exit}')
address=$(ip -4 addr show dev eth0 | awk '/inet / {sub("/.*", "", $2); print $2; exit}')
for f in all default eth0; do
  echo 1 > /proc/sys/net/ipv4/conf/$f/route_localnet
  echo 0 > /proc/sys/net/ipv4/conf/$f/rp_filter
done
ip addr flush dev lo; ip link set lo down
ip route add 127.0.0.0/8 via $gateway dev eth0 src $address
"""

Target = tuple[str, int]


def tries(targets: Iterable[Target]) -> str:
    """Return a script that connects to every target at once, and prints those that it reached."""
    # With -e it is done as soon as it is connected, whatever the other side does then.
    lines = "".join(
        f"(nc -w 4 {address} {port} -e /bin/true >/dev/null 2>&1 && echo {address} {port}) &\n"
        for address, port in targets
    )
    return f"{lines}wait"


def reached_of(printed: str) -> set[Target]:
    """Return the targets that the script printed."""
    return {(address, int(port)) for address, port in (line.split() for line in printed.splitlines())}
