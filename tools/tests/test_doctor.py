"""`make doctor` shows each check with what to do, and says what it can where no stack runs."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from qcstack import compose, doctor
from qcstack.layout import StackLayout
from qcstack.lifecycle import StackError

TUN = {"name": "tun", "status": "FAIL", "detail": "there is none.", "fix": "modprobe tun"}
DISK = {"name": "disk", "status": "PASS", "detail": "there is room."}


@pytest.fixture(autouse=True)
def _whole_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose, "lacking", lambda: None)
    monkeypatch.setattr(compose, "keeps_containers", lambda: True)


@contextmanager
def gateway(answers: dict[str, Any]) -> Iterator[StackLayout]:
    """Answer paths of one gateway; what is not among them is a 503."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(
                answers.get(self.path, {"detail": "away", "reason": "RUNNER_UNAVAILABLE"})
            ).encode()
            self.send_response(200 if self.path in answers else 503)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield StackLayout(Path("/nowhere"), gateway_port=server.server_port)
        finally:
            server.shutdown()
            thread.join()


def told(checks: list[dict[str, str]]) -> tuple[int, str]:
    lines: list[str] = []
    answers = {"/v1/nodes": {"nodes": [{"name": "node-1"}]}, "/v1/nodes/node-1/doctor": {"checks": checks}}
    with gateway(answers) as layout:
        code = doctor.report(layout, lines.append)
    return code, "\n".join(lines)


def test_a_failed_check_is_shown_with_what_to_do_and_is_the_exit_code() -> None:
    code, text = told([TUN, DISK])
    assert code == 1
    assert "→ modprobe tun" in text
    assert "there is room." in text


def test_warnings_alone_are_no_failure() -> None:
    code, text = told([{**TUN, "status": "WARN"}, DISK])
    assert code == 0
    assert "WARN" in text


def test_a_stack_that_cannot_ask_its_host_is_an_error() -> None:
    answers = {"/v1/nodes": {"nodes": [{"name": "node-1"}]}}
    with gateway(answers) as layout, pytest.raises(StackError, match="RUNNER_UNAVAILABLE"):
        doctor.report(layout, print)


def test_without_a_stack_ports_and_engine_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose, "lacking", lambda: "the Docker client has no Compose v2")
    lines: list[str] = []
    with socket.socket() as free, socket.create_server(("127.0.0.1", 0)) as other:
        # Bound, but nobody listens.
        free.bind(("127.0.0.1", 0))
        layout = StackLayout(
            Path("/nowhere"),
            gateway_port=free.getsockname()[1],
            controller_port=other.getsockname()[1],
            image_store_port=other.getsockname()[1],
        )
        code = doctor.report(layout, lines.append)
    text = "\n".join(lines)
    assert code == 1
    assert "no stack answers" in text
    assert "is taken" in text
    assert "no Compose v2" in text


def test_an_engine_that_ends_containers_with_itself_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose, "keeps_containers", lambda: False)
    code, text = told([DISK])
    assert code == 0
    assert '"live-restore": true' in text
