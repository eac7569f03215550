"""A stack is kept running, ended in order, and nothing of it is ever nobody's."""

import http.server
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from native_stack import NativeStack, eventually, native_stack
from qcstack import answering, lifecycle
from qcstack.layout import SERVICES
from qcstack.processes import ProcessId

EVERYTHING = {*SERVICES, "supervisor"}


@pytest.fixture
def stack() -> Iterator[NativeStack]:
    with native_stack() as native:
        yield native


def test_a_service_that_dies_is_restarted_and_its_death_shown(stack: NativeStack) -> None:
    stack.up()
    first = stack.service("vm-host")
    first.signal(signal.SIGKILL)
    eventually(lambda: stack.service("vm-host") != first)
    assert "ended before: signal SIGKILL" in stack.run("status")[1]


def test_services_end_in_order_and_leave_no_socket(stack: NativeStack) -> None:
    stack.up()
    eventually(lambda: len(stack.events("begins")) == len(SERVICES))
    assert stack.run("down")[0] == 0
    assert stack.events("ends") == ["gateway", "controller", "vm_host", "qemu_runner", "image_store"]
    assert stack.running() == set()
    assert list((stack.layout.state / "run").iterdir()) == []


def test_what_vm_host_said_when_it_stopped_outlives_down(stack: NativeStack) -> None:
    stack.up()
    record = Path(f"{stack.layout.socket('runner-vm-host', 'vm-host')}.stopped")
    record.touch()
    assert stack.run("down")[0] == 0
    assert record.exists()


def test_up_of_a_running_stack_changes_nothing(stack: NativeStack) -> None:
    stack.up()
    before = {name: stack.service(name) for name in SERVICES}
    stack.up()
    assert {name: stack.service(name) for name in SERVICES} == before


def test_two_ups_at_once_start_one_stack(stack: NativeStack) -> None:
    both = [stack.begin("up"), stack.begin("up")]
    assert [process.communicate(timeout=20) and process.returncode for process in both] == [0, 0]
    assert stack.events("begins").count("gateway") == 1


def test_up_with_another_port_names_the_one_that_runs(stack: NativeStack) -> None:
    stack.up()
    code, output = stack.run("up", "--port=1")
    assert code == 1
    assert f"runs already, at {stack.layout.base_url}" in output


def test_a_second_supervisor_of_a_stack_refuses(stack: NativeStack) -> None:
    stack.up()
    code, output = stack.run("supervise")
    assert code == 1
    assert "another supervisor" in output
    assert stack.running() == EVERYTHING


@pytest.mark.parametrize("status_file", ["kept", "lost", "torn"])
def test_down_ends_what_a_killed_supervisor_left(stack: NativeStack, status_file: str) -> None:
    stack.up()
    stack.supervisor.signal(signal.SIGKILL)
    eventually(lambda: stack.running() == set(SERVICES))
    match status_file:
        case "lost":
            stack.layout.status_file.unlink()
        case "torn":
            stack.layout.status_file.write_text('{"pid":', encoding="utf-8")
    assert "vm-host" in stack.run("status")[1]
    assert stack.run("down")[0] == 0
    assert stack.running() == set()


def test_up_replaces_what_a_killed_supervisor_left(stack: NativeStack) -> None:
    stack.up()
    before = stack.service("vm-host")
    stack.supervisor.signal(signal.SIGKILL)
    eventually(lambda: stack.running() == set(SERVICES))
    stack.up()
    assert not before.alive()
    assert stack.running() == EVERYTHING


def test_down_works_the_moment_the_supervisor_was_born(stack: NativeStack) -> None:
    process = stack.begin("up")
    eventually(lambda: lifecycle.status(stack.layout).supervisor)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert stack.running() == set()


def test_down_ends_a_supervisor_that_was_stopped(stack: NativeStack) -> None:
    stack.up()
    stack.supervisor.signal(signal.SIGSTOP)
    assert stack.run("down")[0] == 0
    assert stack.running() == set()


def test_a_supervisor_that_cannot_write_goes_on(stack: NativeStack) -> None:
    stack.up()
    first = stack.service("controller")
    supervisor = stack.supervisor
    run = stack.layout.state / "run"
    run.rename(run.with_name("elsewhere"))
    first.signal(signal.SIGKILL)
    eventually(lambda: stack.service("controller") != first)
    assert supervisor.alive()


def test_a_stack_ends_with_its_owner_however_that_ends(stack: NativeStack) -> None:
    with subprocess.Popen(["sleep", "60"]) as owner:
        process = ProcessId.of(owner.pid)
        supervisor = stack.begin("supervise", f"--owner={process.pid}:{process.start_ticks}")
        eventually(lambda: len(stack.events("begins")) == len(SERVICES))
        owner.kill()
    supervisor.communicate(timeout=20)
    assert len(stack.events("ends")) == len(SERVICES)
    assert stack.running() == set()


def test_a_port_that_is_taken_is_refused_before_anything_starts(stack: NativeStack) -> None:
    with socket.create_server(("127.0.0.1", stack.layout.controller_port)):
        code, output = stack.run("up")
    assert code == 1
    assert f"127.0.0.1:{stack.layout.controller_port} is taken" in output
    assert "CONTROLLER_PORT=" in output
    assert stack.events("begins") == []


def test_a_stranger_on_the_port_is_not_taken_for_a_gateway(stack: NativeStack) -> None:
    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>Welcome</html>")

        def log_message(self, *_words: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", stack.layout.gateway_port), Stranger) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        ready, why = answering.ask_ready(stack.layout)
        thread.join()
    assert not ready
    assert "no gateway" in why
