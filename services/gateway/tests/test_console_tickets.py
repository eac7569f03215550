"""Tickets for consoles: for one instance, once, for 30 s, bounded, and in no log."""

import logging

import pytest
from framework.api_client import ApiClient
from gateway import console_tickets
from gateway.console_tickets import ConsoleTickets
from gateway.errors import ConsoleTicketError
from gateway_fakes import Stand
from websockets.asyncio.client import connect


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tickets(clock: Clock) -> ConsoleTickets:
    return ConsoleTickets(clock)


def reason(tickets: ConsoleTickets, value: str, instance: str = "web-1") -> str:
    with pytest.raises(ConsoleTicketError) as caught:
        tickets.redeem(value, instance)
    return caught.value.reason


def test_a_ticket_is_good_once(tickets: ConsoleTickets) -> None:
    value = tickets.issue("web-1", "id-1").value
    assert tickets.redeem(value, "web-1") == "id-1"
    assert reason(tickets, value) == "CONSOLE_TICKET_USED"


def test_a_ticket_is_good_for_30_seconds(tickets: ConsoleTickets, clock: Clock) -> None:
    first, second = tickets.issue("web-1", "id-1").value, tickets.issue("web-1", "id-1").value
    clock.now += 29.9
    assert tickets.redeem(first, "web-1") == "id-1"
    clock.now += 0.1
    assert reason(tickets, second) == "CONSOLE_TICKET_EXPIRED"


def test_a_ticket_of_another_instance_is_burnt(tickets: ConsoleTickets) -> None:
    value = tickets.issue("web-1", "id-1").value
    assert reason(tickets, value, "web-2") == "CONSOLE_TICKET_UNKNOWN"
    assert reason(tickets, value) == "CONSOLE_TICKET_USED"


@pytest.mark.parametrize("value", ["", "guess", "\ud800"])
def test_what_was_not_issued_is_not_good(tickets: ConsoleTickets, value: str) -> None:
    tickets.issue("web-1", "id-1")
    assert reason(tickets, value) == "CONSOLE_TICKET_UNKNOWN"


def test_a_ticket_has_256_random_bits(tickets: ConsoleTickets) -> None:
    values = {tickets.issue("web-1", "id-1").value for _ in range(100)}
    assert len(values) == 100
    assert {len(value) for value in values} == {43}


def test_whoever_asks_for_many_makes_others_ask_again_and_no_more(
    tickets: ConsoleTickets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_tickets, "_MOST", 2)
    first = tickets.issue("web-1", "id-1").value
    second = tickets.issue("web-1", "id-1").value
    third = tickets.issue("web-1", "id-1").value
    assert reason(tickets, first) == "CONSOLE_TICKET_UNKNOWN"
    tickets.redeem(third, "web-1")
    # A used one makes room before one that waits.
    tickets.issue("web-1", "id-1")
    assert reason(tickets, third) == "CONSOLE_TICKET_UNKNOWN"
    assert tickets.redeem(second, "web-1") == "id-1"


def test_what_is_long_over_is_forgotten(tickets: ConsoleTickets, clock: Clock) -> None:
    value = tickets.issue("web-1", "id-1").value
    clock.now += 331
    tickets.issue("web-1", "id-1")
    assert reason(tickets, value) == "CONSOLE_TICKET_UNKNOWN"


async def test_a_ticket_comes_with_its_url(client: ApiClient) -> None:
    response = await client.post("/v1/instances/web-1/console/tickets")
    document = response.json()
    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    assert document["url"] == f"/v1/instances/web-1/console/attach?ticket={document['ticket']}"


async def test_an_instance_that_is_not_there_has_no_tickets(client: ApiClient) -> None:
    response = await client.post("/v1/instances/absent/console/tickets")
    assert (response.status_code, response.json()["reason"]) == (404, "INSTANCE_NOT_FOUND")


async def test_a_key_that_would_be_ignored_is_refused(client: ApiClient) -> None:
    response = await client.post("/v1/instances/web-1/console/tickets", headers={"Idempotency-Key": "k"})
    assert response.json()["reason"] == "FIELD_INVALID"


async def test_a_ticket_stands_in_no_log(
    wire: ApiClient, port: int, rest: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    del rest
    caplog.set_level(logging.DEBUG)
    # What the client logs is its own.
    logging.getLogger("websockets.client").setLevel(logging.WARNING)
    for name in ("httpx", "httpcore", "httpcore.http11", "httpcore.connection"):
        logging.getLogger(name).setLevel(logging.WARNING)
    document = (await wire.post("/v1/instances/web-1/console/tickets")).json()
    caplog.clear()
    async with connect(f"ws://127.0.0.1:{port}{document['url']}") as socket:
        await socket.recv()
    assert any("/console/attach" in record.getMessage() for record in caplog.records)
    for record in caplog.records:
        assert document["ticket"] not in record.getMessage() + repr(record.__dict__)
