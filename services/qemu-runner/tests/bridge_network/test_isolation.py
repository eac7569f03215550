"""What a guest reaches, and what it cannot claim to be. Needs root.

What the listeners and wires saw is the evidence; each attack has its positive control.
"""

import socket
import subprocess
from ipaddress import IPv4Address

import pytest
from bridge_network_frames import (
    BROADCAST,
    DISCOVER,
    EVERYONE,
    NOWHERE,
    OFFER,
    arp_reply,
    dhcp,
    ethernet,
    frames,
    udp_frame,
)
from bridge_network_world import BRIDGE, GATEWAY, HOST, WORLD, Bench, Guest
from user_network_world import reached

pytestmark = pytest.mark.netns

LOOPBACK = IPv4Address("127.0.0.1")
ANY = IPv4Address("0.0.0.0")
FOREIGN_MAC = "52:54:00:66:66:66"
PORT = 41_000

# Makes the guest's kernel send packets for 127.0.0.0/8 to its gateway instead of itself.
HOSTILE = f"""
for f in all default eth0; do
  echo 1 > /proc/sys/net/ipv4/conf/$f/route_localnet
  echo 0 > /proc/sys/net/ipv4/conf/$f/rp_filter
done
ip addr flush dev lo; ip link set lo down
ip route add 127.0.0.0/8 via {GATEWAY} dev eth0 src 10.76.0.5
"""


def control_plane(bench: Bench) -> dict[str, socket.socket]:
    """Listeners as a control plane has them, and ways to them that nobody should have."""
    return {
        "loopback": bench.listen_on_host(LOOPBACK),
        "wildcard": bench.listen_on_host(ANY),
        "address": bench.listen_on_host(HOST),
        "bridge": bench.listen_on_host(GATEWAY),
    }


def test_a_guest_reaches_the_world(bench: Bench) -> None:
    guest = bench.boot(5)
    with bench.world.listen(bench.world.world, WORLD) as listener:
        assert guest.reaches(WORLD, listener.getsockname()[1])


def test_the_world_sees_the_hosts_address_instead_of_the_guests(bench: Bench) -> None:
    guest = bench.boot(5)
    with bench.world.listen(bench.world.world, WORLD) as listener:
        with guest.connect(WORLD, listener.getsockname()[1]):
            connection, client = listener.accept()
        connection.close()

    assert client[0] == str(HOST)


def test_guests_reach_each_other(bench: Bench) -> None:
    one, other = bench.boot(5), bench.boot(6)
    with other.listen(PORT):
        assert one.reaches(other.nic.address, PORT)


@pytest.mark.parametrize("hostile", [False, True])
def test_a_guest_reaches_no_listener_of_the_host(bench: Bench, hostile: bool) -> None:
    guest = bench.boot(5)
    if hostile:
        guest.run("sh", "-c", HOSTILE)
    listeners = control_plane(bench)
    with bench.world.listen(bench.world.world, WORLD) as control:
        for target in (LOOPBACK, IPv4Address("127.0.0.2"), HOST, GATEWAY):
            for listener in listeners.values():
                guest.reaches(target, listener.getsockname()[1], 0.2)
        assert guest.reaches(WORLD, control.getsockname()[1], 5.0), "the control failed"

    assert {name for name, listener in listeners.items() if reached(listener)} == set()
    for listener in listeners.values():
        listener.close()


def test_without_the_rules_the_same_attack_reaches_the_host(own_bench: Bench) -> None:
    bench = own_bench
    guest = bench.boot(5)
    guest.run("sh", "-c", HOSTILE)
    bench.service.kill()
    for family, name in bench.tables():
        bench.host("nft", "delete", "table", family, name)
    with bench.listen_on_host(LOOPBACK) as loopback, bench.listen_on_host(GATEWAY) as bridge:
        assert guest.reaches(GATEWAY, bridge.getsockname()[1])
        assert guest.reaches(LOOPBACK, loopback.getsockname()[1])


def test_a_guest_is_not_forwarded_to_a_network_that_no_default_route_leads_to(bench: Bench) -> None:
    guest = bench.boot(5)
    inner = IPv4Address("172.30.0.2")
    _made_engine_network(bench, guest)
    bench.undo(lambda: bench.host("ip", "link", "del", "br-engine"))
    with bench.world.listen(guest.namespace + "-c", inner) as container:
        port = container.getsockname()[1]
        with bench.connect_from_host(inner, port):
            assert reached(container), "the control failed: the host does not reach it either"

        assert not guest.reaches(inner, port)


def test_a_guest_whose_tap_was_taken_off_the_bridge_reaches_nothing(own_bench: Bench) -> None:
    bench = own_bench
    guest = bench.boot(5)
    # Nobody puts it back then.
    bench.service.kill()
    bench.host("ip", "link", "set", guest.tap, "nomaster")
    with (
        bench.world.receive_on(bench.world.host, HOST) as listener,
        bench.world.inside(bench.world.host, _ear) as ear,
        guest.udp_socket() as wire,
    ):
        wire.sendto(b"unjudged", listener.getsockname())
        assert any(b"unjudged" in frame for frame in frames(ear, 5.0)), "the control failed"
        assert not reached(listener)


def test_a_neighbour_of_the_host_cannot_route_to_a_guest(bench: Bench) -> None:
    guest = bench.boot(5)
    bench.world.run_in(bench.world.world, "ip", "route", "add", "10.76.0.0/24", "via", str(HOST))
    bench.undo(lambda: bench.world.run_in(bench.world.world, "ip", "route", "del", "10.76.0.0/24"))
    with guest.listen(PORT) as listener:
        with bench.connect_from_host(guest.nic.address, PORT):
            assert reached(listener), "the control failed: the host does not reach the guest"
        with pytest.raises(OSError):
            bench.world.connect(bench.world.world, guest.nic.address, PORT)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


def _made_engine_network(bench: Bench, guest: Guest) -> None:
    """A bridge with a container on it, as an engine makes them."""
    container = f"{guest.namespace}-c"
    _run("ip", "netns", "add", container)
    bench.extra.append(container)
    bench.host("ip", "link", "add", "br-engine", "type", "bridge")
    bench.host("ip", "addr", "add", "172.30.0.1/24", "dev", "br-engine")
    bench.host("ip", "link", "add", "vc0", "type", "veth", "peer", "eth0", "netns", container)
    bench.host("ip", "link", "set", "vc0", "master", "br-engine")
    for name in ("vc0", "br-engine"):
        bench.host("ip", "link", "set", name, "up")
    inside = bench.world.enter(container)
    _run(*inside, "ip", "addr", "add", "172.30.0.2/24", "dev", "eth0")
    _run(*inside, "ip", "link", "set", "eth0", "up")
    _run(*inside, "ip", "route", "add", "default", "via", "172.30.0.1")


class TestSpoofing:
    """Frames of a guest that claims to be somebody else, as another guest's wire sees them."""

    MARK = b"this is what was sent"

    def sent(self, bench: Bench, frame: bytes, needle: bytes) -> bool:
        """Send a frame and an honest one behind it; tell whether the first arrived at the other guest."""
        attacker, victim = bench.boot(5), bench.boot(6)
        honest = udp_frame(attacker.nic.mac, BROADCAST, (attacker.nic.address, 9), (EVERYONE, 9), b"honest")
        with victim.packet_socket() as ear, attacker.packet_socket() as wire:
            wire.send(frame)
            wire.send(honest)
            seen = b""
            while b"honest" not in seen:
                ear.settimeout(5.0)
                frame_seen = ear.recv(65535)
                if needle in frame_seen:
                    return True
                seen = frame_seen
        return False

    def test_an_honest_frame_arrives(self, bench: Bench) -> None:
        frame = udp_frame(
            "52:54:00:00:00:05", BROADCAST, (IPv4Address("10.76.0.5"), 9), (EVERYONE, 9), self.MARK
        )
        assert self.sent(bench, frame, self.MARK)

    def test_a_foreign_mac_is_dropped(self, bench: Bench) -> None:
        frame = udp_frame(FOREIGN_MAC, BROADCAST, (IPv4Address("10.76.0.5"), 9), (EVERYONE, 9), self.MARK)
        assert not self.sent(bench, frame, self.MARK)

    @pytest.mark.parametrize("source", ["10.76.0.6", "10.76.0.1", "198.51.100.1", "0.0.0.0"])
    def test_a_foreign_address_is_dropped(self, bench: Bench, source: str) -> None:
        frame = udp_frame("52:54:00:00:00:05", BROADCAST, (IPv4Address(source), 9), (EVERYONE, 9), self.MARK)
        assert not self.sent(bench, frame, self.MARK)

    def test_an_honest_arp_reply_arrives(self, bench: Bench) -> None:
        frame = arp_reply("52:54:00:00:00:05", "52:54:00:00:00:05", IPv4Address("10.76.0.5"), NOWHERE)
        assert self.sent(bench, frame, frame[14:])

    @pytest.mark.parametrize("claimed", ["10.76.0.1", "10.76.0.6"])
    def test_an_arp_reply_for_anothers_address_is_dropped(self, bench: Bench, claimed: str) -> None:
        frame = arp_reply("52:54:00:00:00:05", "52:54:00:00:00:05", IPv4Address(claimed), NOWHERE)
        assert not self.sent(bench, frame, frame[14:])

    def test_an_arp_reply_with_a_foreign_mac_inside_is_dropped(self, bench: Bench) -> None:
        frame = arp_reply("52:54:00:00:00:05", FOREIGN_MAC, IPv4Address("10.76.0.5"), NOWHERE)
        assert not self.sent(bench, frame, frame[14:])

    @pytest.mark.parametrize("source_port", [67, 1067])
    def test_a_guest_cannot_play_dhcp_server(self, bench: Bench, source_port: int) -> None:
        offer = dhcp(OFFER, "52:54:00:00:00:06", boot_reply=True, yours=IPv4Address("10.76.0.66"))
        source = IPv4Address("10.76.0.5"), source_port
        frame = udp_frame("52:54:00:00:00:05", BROADCAST, source, (EVERYONE, 68), offer)
        assert not self.sent(bench, frame, offer)

    def test_a_guest_without_an_address_may_ask_for_one(self, bench: Bench) -> None:
        asked = dhcp(DISCOVER, "52:54:00:00:00:05")
        frame = udp_frame("52:54:00:00:00:05", BROADCAST, (NOWHERE, 68), (EVERYONE, 67), asked)
        assert self.sent(bench, frame, asked)

    def test_a_foreign_mac_cannot_ask_for_an_address_either(self, bench: Bench) -> None:
        asked = dhcp(DISCOVER, FOREIGN_MAC)
        frame = udp_frame(FOREIGN_MAC, BROADCAST, (NOWHERE, 68), (EVERYONE, 67), asked)
        assert not self.sent(bench, frame, asked)

    def test_an_honest_arp_reply_in_a_frame_of_a_foreign_mac_is_dropped(self, bench: Bench) -> None:
        frame = arp_reply(FOREIGN_MAC, "52:54:00:00:00:05", IPv4Address("10.76.0.5"), NOWHERE)
        assert not self.sent(bench, frame, frame[14:])

    @pytest.mark.parametrize("kind", [0x86DD, 0x88CC])
    def test_what_is_neither_arp_nor_ipv4_is_dropped(self, bench: Bench, kind: int) -> None:
        frame = ethernet("52:54:00:00:00:05", BROADCAST, kind, self.MARK)
        assert not self.sent(bench, frame, self.MARK)

    def test_a_foreign_address_reaches_the_host_neither(self, bench: Bench) -> None:
        attacker = bench.boot(5)
        gateway_mac = bench.host("cat", f"/sys/class/net/{BRIDGE}/address").strip()
        with bench.world.inside(bench.world.host, _bridge_ear) as ear, attacker.packet_socket() as wire:
            spoofed = (IPv4Address("10.76.0.99"), 9)
            wire.send(udp_frame(attacker.nic.mac, gateway_mac, spoofed, (WORLD, 9), self.MARK))
            honest = (attacker.nic.address, 9)
            wire.send(udp_frame(attacker.nic.mac, gateway_mac, honest, (WORLD, 9), b"honest"))

            for frame in frames(ear, 5.0):
                assert self.MARK not in frame
                if b"honest" in frame:
                    return
        pytest.fail("the control failed: nothing arrived at all")


def _ear() -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    made.settimeout(0.2)
    return made


def _bridge_ear() -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    made.bind((BRIDGE, 0))
    return made
