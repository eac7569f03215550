"""The event stream: what changed, in order, replayable."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from framework.cloud import Cloud, document


def test_a_launch_is_seen_from_created_to_deleted_and_can_be_replayed(cloud: Cloud) -> None:
    with stream(cloud) as live:
        name = cloud.launch_ready()["name"]
        cloud.delete(name)
        seen = until_deleted(live, name)
    types = [event["type"] for event in seen]
    assert types[0] == "instance.created"
    assert "operation.created" in types
    assert types[-1] == "instance.deleted"
    states = [e["resource"]["status"]["state"] for e in seen if e["type"] == "instance.updated"]
    assert "RUNNING" in states
    cursors = [event["cursor"] for event in seen]
    assert len(set(cursors)) == len(cursors)

    with stream(cloud, **{"Last-Event-ID": cursors[0]}) as replay:
        assert [event["cursor"] for event in until_deleted(replay, name)] == cursors[1:]


def test_a_cursor_that_was_never_given_is_refused(cloud: Cloud) -> None:
    response = cloud.api.request("GET", "/v1/events", headers={"Last-Event-ID": "no-cursor"})
    assert response.status_code == 400
    assert document(response)["reason"] == "CURSOR_INVALID"


def test_user_data_is_in_no_answer_event_or_log(cloud: Cloud) -> None:
    secret = "correct-horse-battery-staple"
    with stream(cloud) as live:
        name = cloud.launch(cloudInit={"userdata": f"#cloud-config\n# {secret}\n"})["name"]
        answers = [
            cloud.api.request("GET", path).text for path in (f"/v1/instances/{name}", "/v1/operations")
        ]
        cloud.delete(name)
        events = json.dumps(until_deleted(live, name))
    assert secret not in events
    assert not any(secret in answer for answer in answers)
    for service, log in cloud.stack.logs().items():
        assert secret not in log, service


@contextmanager
def stream(cloud: Cloud, **headers: str) -> Iterator[Iterator[dict[str, Any]]]:
    """Open the event stream and yield its events, decoded."""
    connection = http.client.HTTPConnection("127.0.0.1", cloud.stack.layout.gateway_port, timeout=60)
    connection.request("GET", "/v1/events", headers={"Accept": "text/event-stream", **headers})
    response = connection.getresponse()
    assert response.status == 200, response.read()

    def events() -> Iterator[dict[str, Any]]:
        fields: dict[str, str] = {}
        while line := response.readline().decode():
            if line in {"\n", "\r\n"}:
                if "data" in fields:
                    event = json.loads(fields["data"])
                    assert fields["id"] == event["cursor"]
                    assert fields["event"] == event["type"]
                    yield event
                fields = {}
            elif not line.startswith(":"):
                name, _, value = line.rstrip("\r\n").partition(":")
                fields[name] = value.removeprefix(" ")

    try:
        yield events()
    finally:
        connection.close()


def until_deleted(events: Iterator[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Collect the events of `name` up to its deletion."""
    collected = []
    for event in events:
        if event.get("instance") == name:
            collected.append(event)
            if event["type"] == "instance.deleted":
                return collected
    raise AssertionError("the stream ended early")
