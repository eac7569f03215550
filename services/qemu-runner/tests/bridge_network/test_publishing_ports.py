"""Ports of the host that lead to a guest. Needs root."""

import socket
from ipaddress import IPv4Address

import pytest
from bridge_network_world import GATEWAY, HOST, WORLD, Bench, CallError, card
from qemu_runner.bridge_network import Protocol, PublishedPort
from user_network_world import reached

pytestmark = pytest.mark.netns

LOOPBACK = IPv4Address("127.0.0.1")
ANY = IPv4Address("0.0.0.0")
ON_LOOPBACK = PublishedPort(2222, 22)
ON_ADDRESS = PublishedPort(2222, 22, address=HOST)
EVERYWHERE = PublishedPort(2222, 22, address=ANY)
UDP = PublishedPort(5353, 53, Protocol.UDP)


def asks(bench: Bench, wire: socket.socket, port: int, answer_to: socket.socket) -> bool:
    """Send a datagram to a published port; tell whether the guest saw it."""
    wire.sendto(b"ask", (str(LOOPBACK), port))
    return reached(answer_to, 1.0)


def test_a_port_on_the_loopback_leads_to_the_guest_and_back(bench: Bench) -> None:
    guest = bench.boot(5, ON_LOOPBACK)
    with guest.listen(22) as listener, bench.connect_from_host(LOOPBACK, 2222) as client:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"hello")
            assert client.recv(5) == b"hello"


def test_a_port_on_the_loopback_is_not_for_the_world(bench: Bench) -> None:
    guest = bench.boot(5, ON_LOOPBACK)
    with guest.listen(22) as listener:
        with bench.connect_from_host(LOOPBACK, 2222):
            assert reached(listener), "the control failed"
        with pytest.raises(OSError):
            bench.world.connect(bench.world.world, HOST, 2222)


def test_the_world_cannot_send_to_the_hosts_loopback_to_reach_a_port_there(own_bench: Bench) -> None:
    bench = own_bench
    guest = bench.boot(5, ON_LOOPBACK)
    world = bench.world
    for setting in ("all.route_localnet=1", "up0.route_localnet=1"):
        world.run_in(world.world, "sysctl", "-qw", f"net.ipv4.conf.{setting}")
    world.run_in(world.world, "ip", "addr", "flush", "dev", "lo")
    world.run_in(world.world, "ip", "link", "set", "lo", "down")
    world.run_in(world.world, "ip", "route", "add", "127.0.0.0/8", "via", str(HOST), "src", str(WORLD))
    with guest.listen(22) as listener:
        with pytest.raises(OSError):
            world.connect(world.world, LOOPBACK, 2222)
        assert not reached(listener)


def test_a_port_on_an_address_is_for_the_world_the_host_and_other_guests(bench: Bench) -> None:
    guest, other = bench.boot(5, ON_ADDRESS), bench.boot(6)
    with guest.listen(22) as listener:
        with bench.world.connect(bench.world.world, HOST, 2222):
            assert reached(listener)
        with bench.connect_from_host(HOST, 2222):
            assert reached(listener)
        with other.connect(HOST, 2222):
            assert reached(listener)


def test_guests_use_each_others_ports_also_where_bridges_bypass_the_packet_filter(bench: Bench) -> None:
    bench.host("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0")
    bench.undo(lambda: bench.host("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1"))
    guest, other = bench.boot(5, ON_ADDRESS), bench.boot(6)
    with guest.listen(22) as listener, other.connect(HOST, 2222):
        assert reached(listener)


def test_a_port_everywhere_is_on_every_address_of_the_host(bench: Bench) -> None:
    guest = bench.boot(5, EVERYWHERE)
    with guest.listen(22) as listener:
        for address in (LOOPBACK, HOST, GATEWAY):
            with bench.connect_from_host(address, 2222):
                assert reached(listener)
        with bench.world.connect(bench.world.world, HOST, 2222):
            assert reached(listener)


def test_a_published_port_opens_nothing_of_the_host_to_the_guest(bench: Bench) -> None:
    guest = bench.boot(5, ON_LOOPBACK)
    with bench.listen_on_host(LOOPBACK) as listener:
        guest.run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
        guest.run("ip", "addr", "flush", "dev", "lo")
        guest.run("ip", "route", "add", "127.0.0.0/8", "via", str(GATEWAY), "src", str(guest.nic.address))
        assert not guest.reaches(LOOPBACK, listener.getsockname()[1])
        assert not guest.reaches(LOOPBACK, 2222)


def test_a_published_port_is_taken_for_everybody_else(bench: Bench) -> None:
    bench.boot(5, ON_LOOPBACK)
    with pytest.raises(OSError, match="in use"):
        bench.listen_on_host(LOOPBACK, 2222)


def test_a_port_that_something_has_is_refused_and_nothing_of_the_card_stays(bench: Bench) -> None:
    with bench.listen_on_host(LOOPBACK, 2222), pytest.raises(CallError) as refused:
        bench.boot(5, ON_LOOPBACK)

    assert refused.value.kind == "BridgePortTakenError"
    assert bench.service.call("leaks", []) == []


def test_an_address_that_is_not_the_hosts_is_refused(bench: Bench) -> None:
    elsewhere = PublishedPort(2222, 22, address=IPv4Address("203.0.113.9"))
    with pytest.raises(CallError) as refused:
        bench.service.call("check_ports", {"machine": "m", "ports": [_encoded(elsewhere)]})

    assert refused.value.kind == "BridgePortAddressError"


def test_a_port_is_published_to_a_running_guest_and_withdrawn(bench: Bench) -> None:
    guest = bench.boot(5)
    with guest.listen(22) as listener:
        bench.service.publish(guest.nic.machine_id, ON_LOOPBACK)
        with bench.connect_from_host(LOOPBACK, 2222):
            assert reached(listener)
        bench.service.publish(guest.nic.machine_id)
        with pytest.raises(OSError):
            bench.connect_from_host(LOOPBACK, 2222)
    bench.listen_on_host(LOOPBACK, 2222).close()


def test_a_connection_survives_the_withdrawal_of_its_port(bench: Bench) -> None:
    guest = bench.boot(5, ON_LOOPBACK)
    with guest.listen(22) as listener, bench.connect_from_host(LOOPBACK, 2222) as client:
        connection, _ = listener.accept()
        with connection:
            bench.service.publish(guest.nic.machine_id)
            client.sendall(b"still here")
            assert connection.recv(10) == b"still here"


def test_a_refused_change_leaves_the_ports_as_they_were(bench: Bench) -> None:
    guest = bench.boot(5, ON_LOOPBACK)
    with bench.listen_on_host(LOOPBACK, 2223), guest.listen(22) as listener:
        with pytest.raises(CallError):
            bench.service.publish(guest.nic.machine_id, PublishedPort(2224, 22), PublishedPort(2223, 22))
        with bench.connect_from_host(LOOPBACK, 2222):
            assert reached(listener)
    bench.listen_on_host(LOOPBACK, 2224).close()


def test_a_udp_port_is_reached_by_a_client_that_sent_before_it_was_published(bench: Bench) -> None:
    guest = bench.boot(5)
    with guest.udp_socket(53) as ear, bench.world.receive_on(bench.world.host, LOOPBACK) as client:
        assert not asks(bench, client, 5353, ear)
        bench.service.publish(guest.nic.machine_id, UDP)

        assert asks(bench, client, 5353, ear)


def test_a_udp_flow_ends_when_its_port_is_withdrawn(bench: Bench) -> None:
    guest = bench.boot(5, UDP)
    with guest.udp_socket(53) as ear, bench.world.receive_on(bench.world.host, LOOPBACK) as client:
        assert asks(bench, client, 5353, ear), "the control failed"
        bench.service.publish(guest.nic.machine_id)

        assert not asks(bench, client, 5353, ear)


def test_a_udp_answer_comes_from_the_published_port(bench: Bench) -> None:
    guest = bench.boot(5, UDP)
    with guest.udp_socket(53) as ear, bench.world.receive_on(bench.world.host, LOOPBACK) as client:
        client.connect((str(LOOPBACK), 5353))
        client.send(b"ask")
        _, asker = ear.recvfrom(16)
        ear.sendto(b"answer", asker)
        client.settimeout(5.0)

        assert client.recv(16) == b"answer"


def test_a_detached_machines_port_is_free_again(bench: Bench) -> None:
    guest = bench.boot(5, ON_LOOPBACK)
    guest.end()
    bench.service.call("detach", guest.nic.machine_id)

    bench.listen_on_host(LOOPBACK, 2222).close()


def test_a_machine_that_is_not_attached_has_no_ports_to_change(bench: Bench) -> None:
    with pytest.raises(CallError) as refused:
        bench.service.publish(card(9).machine_id, ON_LOOPBACK)

    assert refused.value.kind == "NotAttachedError"


def _encoded(port: PublishedPort) -> dict[str, object]:
    return {
        "host": port.host,
        "guest": port.guest,
        "protocol": str(port.protocol),
        "address": str(port.address),
    }
