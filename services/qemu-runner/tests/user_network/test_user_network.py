"""The user network is offered only where guests cannot reach the host, and says why not."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from qemu_runner.user_network import (
    Available,
    CheckStatus,
    GuardError,
    PasstBehaviour,
    PasstNetwork,
    PortTakenError,
    Protocol,
    PublishedPort,
    Refused,
    ResolverPlan,
    UdpPublishingError,
    UserNetworkUnavailableError,
)
from user_network_fakes import LEAKY, TIGHT, FakeBinding, FakeGuard, FakeHost, FakeProbe

SSH = PublishedPort(2222, 22)
DNS = PublishedPort(5353, 53, Protocol.UDP)
DNS_OUTSIDE = PublishedPort(5354, 53, Protocol.UDP, IPv4Address("192.0.2.2"))


def network(
    seen: PasstBehaviour | None = LEAKY,
    guard: FakeGuard | None = None,
    host: FakeHost | None = None,
    binding: FakeBinding | None = None,
) -> PasstNetwork:
    return PasstNetwork(
        program="passt",
        subnet=IPv4Network("10.77.0.0/16"),
        guard=guard,
        probe=FakeProbe(seen),
        host=host or FakeHost(),
        binding=binding or FakeBinding(),
    )


async def test_a_leaky_passt_is_offered_behind_the_guard() -> None:
    verdict = await network(LEAKY, FakeGuard()).availability()

    assert isinstance(verdict, Available)
    assert verdict.guarded


async def test_a_leaky_passt_is_refused_without_a_guard() -> None:
    assert isinstance(await network(LEAKY).availability(), Refused)


async def test_a_leaky_passt_is_refused_where_nftables_refuses() -> None:
    verdict = await network(LEAKY, FakeGuard(obstacle="not permitted")).availability()

    assert isinstance(verdict, Refused)


async def test_a_tight_passt_is_offered_without_a_guard() -> None:
    verdict = await network(TIGHT).availability()

    assert isinstance(verdict, Available)
    assert not verdict.guarded


async def test_an_absent_passt_is_refused() -> None:
    assert isinstance(await network(None, FakeGuard()).availability(), Refused)


async def test_a_host_without_default_route_is_refused() -> None:
    assert isinstance(await network(TIGHT, host=FakeHost(interfaces=())).availability(), Refused)


async def test_asking_for_availability_leaves_no_guard() -> None:
    guard = FakeGuard()

    await network(LEAKY, guard).availability()

    assert not guard.standing


async def test_that_the_guard_can_stand_is_tried_once_for_many_questions() -> None:
    guard = FakeGuard()
    asked = network(LEAKY, guard)

    await asked.availability()
    await asked.availability()

    assert guard.trials == 1


async def test_a_guard_that_was_refused_is_tried_again() -> None:
    guard = FakeGuard(obstacle="not permitted")
    asked = network(LEAKY, guard)
    await asked.availability()
    guard.obstacle = None

    assert isinstance(await asked.availability(), Available)


async def test_the_guard_stands_before_a_start() -> None:
    guard = FakeGuard()

    start = await network(LEAKY, guard).prepare_start(0, [SSH])

    assert guard.standing
    assert "127.0.0.1/2222:22" in start.argv(7)


async def test_a_start_is_refused_where_the_network_is() -> None:
    with pytest.raises(UserNetworkUnavailableError):
        await network(LEAKY).prepare_start(0, [])


async def test_a_guard_that_fails_only_now_stops_even_a_tight_passt() -> None:
    with pytest.raises(GuardError):
        await network(TIGHT, FakeGuard(failing=True)).prepare_start(0, [])


async def test_a_tight_passt_starts_where_there_can_be_no_guard() -> None:
    start = await network(TIGHT, FakeGuard(obstacle="not permitted")).prepare_start(0, [])

    assert not start.available.guarded


async def test_a_port_that_another_machine_reserved_is_taken() -> None:
    with pytest.raises(PortTakenError):
        await network().check_ports([SSH], [PublishedPort(2222, 80)])


async def test_a_port_that_the_host_refuses_is_refused() -> None:
    binding = FakeBinding({SSH: PortTakenError(SSH, "in use")})

    with pytest.raises(PortTakenError):
        await network(binding=binding).check_ports([SSH], [])


async def test_ports_that_the_machine_already_holds_are_not_tried() -> None:
    binding = FakeBinding()

    await network(binding=binding).check_ports([SSH], [], bind=False)

    assert binding.tried == []


async def test_udp_is_refused_where_replies_are_lost() -> None:
    with pytest.raises(UdpPublishingError):
        await network(LEAKY).check_ports([DNS], [])


async def test_udp_on_another_address_is_published_where_its_replies_return() -> None:
    binding = FakeBinding()

    await network(LEAKY, binding=binding).check_ports([DNS_OUTSIDE], [])

    assert binding.tried == [DNS_OUTSIDE]


async def test_an_old_passt_publishes_a_guests_udp_port_once() -> None:
    twin = PublishedPort(5355, 53, Protocol.UDP, DNS_OUTSIDE.address)

    with pytest.raises(UdpPublishingError, match="mixes up"):
        await network(LEAKY).check_ports([DNS_OUTSIDE, twin], [])


async def test_udp_is_published_where_replies_return() -> None:
    binding = FakeBinding()

    await network(TIGHT, binding=binding).check_ports([DNS], [])

    assert binding.tried == [DNS]


async def test_a_guard_that_nobody_needs_is_a_leak() -> None:
    (leak,) = await network(LEAKY, FakeGuard(standing=True)).leaks(needed=False)

    assert (leak.kind, leak.owner) == ("rule", "tests/1")


async def test_a_guard_that_a_machine_needs_is_none() -> None:
    assert await network(LEAKY, FakeGuard(standing=True)).leaks(needed=True) == []


async def test_a_host_without_guard_has_no_leak() -> None:
    assert await network(LEAKY, FakeGuard()).leaks(needed=False) == []


async def test_removing_the_guard_takes_it_down() -> None:
    guard = FakeGuard(standing=True)

    await network(LEAKY, guard).remove_guard()

    assert not guard.standing


@pytest.mark.parametrize(
    ("name", "broken", "status"),
    [
        ("user-network-passt", network(None), CheckStatus.FAIL),
        ("user-network-passt", network(LEAKY), CheckStatus.WARN),
        ("user-network-guard", network(LEAKY), CheckStatus.WARN),
        ("user-network-guard", network(LEAKY, FakeGuard(obstacle="not permitted")), CheckStatus.WARN),
        ("user-network-route", network(TIGHT, host=FakeHost(interfaces=())), CheckStatus.FAIL),
        ("user-network-resolver", network(TIGHT, host=FakeHost(plan=ResolverPlan())), CheckStatus.WARN),
        ("user-network", network(LEAKY), CheckStatus.FAIL),
        ("user-network", network(TIGHT), CheckStatus.WARN),
    ],
)
async def test_the_doctor_says_what_is_wrong_and_how_to_mend_it(
    name: str, broken: PasstNetwork, status: CheckStatus
) -> None:
    (check,) = [check for check in await broken.checks() if check.name == name]

    assert check.status is status
    assert check.fix


async def test_the_doctor_passes_a_sound_host() -> None:
    assert {check.status for check in await network(TIGHT, FakeGuard()).checks()} == {CheckStatus.PASS}
