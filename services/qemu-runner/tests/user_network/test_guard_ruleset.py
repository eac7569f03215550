"""The guard's ruleset: whom it judges, what it lets through, where it hooks."""

from ipaddress import IPv4Address
from typing import Any

import pytest
from qemu_runner.user_network import ResolverPlan
from qemu_runner.user_network.guard import GuardSpec, stands

SPEC = GuardSpec("cluster-1/node-1", 20_000, 29_999)
FORWARDED = ResolverPlan(forward_to=IPv4Address("127.0.0.53"))


def added(resolver: ResolverPlan, kind: str) -> list[Any]:
    commands: list[dict[str, Any]] = [*SPEC.ensure_commands(resolver)]
    return [body[kind] for command in commands for body in command.values() if kind in body]


def verdicts(resolver: ResolverPlan) -> list[str]:
    return [next(iter(rule["expr"][-1])) for rule in added(resolver, "rule")]


def test_nothing_is_let_through_when_guests_ask_their_servers_themselves() -> None:
    assert set(verdicts(ResolverPlan())) == {"reject"}


def test_only_the_forwarded_resolver_is_let_through_and_first() -> None:
    assert verdicts(FORWARDED)[0] == "accept"
    assert verdicts(FORWARDED).count("accept") == 1


def test_every_rule_judges_the_uids_of_machines_only() -> None:
    for rule in added(FORWARDED, "rule"):
        match = rule["expr"][0]["match"]
        assert (match["left"], match["right"]) == ({"meta": {"key": "skuid"}}, {"range": [20_000, 29_999]})


def test_every_rule_carries_its_owner() -> None:
    assert all("cluster-1/node-1" in rule["comment"] for rule in added(FORWARDED, "rule"))


def test_the_guard_judges_after_tracking_and_before_destination_nat() -> None:
    (chain,) = added(ResolverPlan(), "chain")

    assert chain["hook"] == "output"
    assert -200 < chain["prio"] < -100


def test_a_comment_fits_into_what_nft_takes() -> None:
    assert len(GuardSpec("x" * 500, 1, 2).comment) <= 128


def test_owners_have_tables_of_their_own() -> None:
    assert GuardSpec("a", 1, 2).table != GuardSpec("b", 1, 2).table


@pytest.mark.parametrize(("first", "last"), [(0, 10), (10, 9)])
def test_a_range_with_root_or_without_uids_is_refused(first: int, last: int) -> None:
    with pytest.raises(ValueError, match="not a range"):
        GuardSpec("a", first, last)


def test_a_listing_with_our_table_says_that_the_guard_stands() -> None:
    listing: dict[str, object] = {
        "nftables": [{"metainfo": {}}, {"table": {"family": "inet", "name": SPEC.table}}]
    }

    assert stands(listing, SPEC)


@pytest.mark.parametrize("entry", [{"table": {"family": "ip", "name": SPEC.table}}, {"table": "odd"}, "odd"])
def test_a_listing_without_our_table_says_that_it_does_not(entry: object) -> None:
    assert not stands({"nftables": [entry]}, SPEC)


def test_an_answer_of_another_shape_is_no_guard() -> None:
    assert not stands({"nftables": "odd"}, SPEC)
