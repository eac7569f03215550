"""Guests of a native stack beside a real Docker engine, which starts, ends, is killed and starts again.

Stack, engine and the world they speak to are in network namespaces of the test's own. Two connections are
open all the time, one that the guest began and one that came in by a published port. Needs root.
"""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial

import pytest
from framework.engine import Engine, engine_in
from framework.site import Site, running_site
from framework.stack import eventually
from framework.talk import Talk
from qcstack import lifecycle
from user_network_world import HOST, WORLD, World

pytestmark = [pytest.mark.compose, pytest.mark.netns]

GUEST = "beside"
ECHO, GREETING = 2222, 2223
OUTWARD = 9001


@dataclass(frozen=True, slots=True)
class Neighbours:
    """A guest behind a stack, and an engine beside it."""

    site: Site
    engine: Engine
    talks: tuple[Talk, ...]

    @property
    def world(self) -> World:
        """Where both are."""
        return self.site.world

    def chain(self) -> list[str]:
        """Return the rules of DOCKER-USER."""
        return self.world.run("iptables", "-S", "DOCKER-USER").splitlines()

    def ours(self) -> list[str]:
        """Return ours of them."""
        return [rule for rule in self.chain() if "qcontroller:" in rule]

    def assert_traffic_flows(self) -> None:
        """See that both connections live, and that new ones can be made both ways."""
        for talk in self.talks:
            talk.assert_goes_on()
        with self.world.listen(self.world.world, WORLD) as listener:
            target = (str(WORLD), listener.getsockname()[1])
            assert self.site.probe(GUEST, [target]) == {target}, "out through NAT"
        eventually(self._is_greeted, "in by the published port")

    def _is_greeted(self) -> bool:
        # The guest's server takes one after the other, and in between is not there.
        with (
            suppress(ConnectionRefusedError, ConnectionResetError),
            self.world.connect(self.world.world, HOST, GREETING) as incoming,
        ):
            return incoming.recv(64) == b"welcome\n"
        return False


@pytest.fixture(scope="module")
def beside() -> Iterator[Neighbours]:
    """A guest that talks both ways, and an engine that has not been started yet."""
    with running_site("qc-en-") as site, engine_in(site.world) as engine, ExitStack() as open_:
        # The engine closes FORWARD only where it is the one that opens forwarding.
        site.world.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
        ports = [{"host": port, "guest": port, "address": str(HOST)} for port in (ECHO, GREETING)]
        site.launch_ready(GUEST, nics=[{"network": "qc0"}], ports=ports)
        site.echo(GUEST, ECHO)
        site.serve(GUEST, GREETING, "welcome")
        with site.world.listen(site.world.world, WORLD, OUTWARD) as listener:
            site.run(GUEST, f"nc {WORLD} {OUTWARD} -e /bin/cat >/dev/null 2>&1 </dev/null &")
            listener.settimeout(30)
            outward, _ = listener.accept()
        incoming = site.world.connect(site.world.world, HOST, ECHO)
        yield Neighbours(site, engine, tuple(open_.enter_context(Talk(end)) for end in (outward, incoming)))


def test_before_an_engine_starts_traffic_flows(beside: Neighbours) -> None:
    beside.assert_traffic_flows()
    assert "DOCKER" not in beside.world.run("nft", "list", "tables")


def test_an_engine_that_starts_closes_forwarding_and_does_not_interrupt_a_guest(beside: Neighbours) -> None:
    beside.engine.start()
    assert "-P FORWARD DROP" in beside.world.run("iptables", "-S", "FORWARD"), "the control failed"
    eventually(beside.ours, "the rules stand in the engine's chain")
    beside.assert_traffic_flows()


def test_rules_that_somebody_flushes_come_back(beside: Neighbours) -> None:
    before = beside.chain()
    beside.world.run("iptables", "-F", "DOCKER-USER")
    eventually(lambda: beside.ours() == [rule for rule in before if "qcontroller:" in rule], "they are back")
    beside.assert_traffic_flows()


def test_an_engine_that_ends_does_not_interrupt_a_guest(beside: Neighbours) -> None:
    beside.engine.stop()
    beside.assert_traffic_flows()


def test_an_engine_that_starts_again_finds_our_rules_once(beside: Neighbours) -> None:
    before = beside.ours()
    beside.engine.start()
    beside.assert_traffic_flows()
    assert beside.ours() == before


def test_a_network_that_the_engine_makes_meanwhile_does_not_interrupt_a_guest(beside: Neighbours) -> None:
    beside.engine.docker("network", "create", "other")
    beside.assert_traffic_flows()
    beside.engine.docker("network", "rm", "other")
    beside.assert_traffic_flows()


def test_an_engine_that_is_killed_and_started_again_does_not_interrupt_a_guest(beside: Neighbours) -> None:
    beside.engine.kill()
    beside.assert_traffic_flows()
    beside.engine.start()
    beside.assert_traffic_flows()


def test_down_takes_our_rules_out_of_the_engines_chain_and_nothing_else(beside: Neighbours) -> None:
    site = beside.site
    others = [rule for rule in site.world.run("iptables", "-S").splitlines() if "qcontroller:" not in rule]
    assert beside.ours(), "the control failed"
    site.inside(partial(site.cloud.delete, GUEST))
    site.inside(lambda: lifecycle.down(site.stack.layout))
    assert site.world.run("iptables", "-S").splitlines() == others
    assert site.stack.layout.bridge not in site.world.run("iptables", "-t", "nat", "-S")
