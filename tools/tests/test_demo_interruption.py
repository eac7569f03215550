"""However the demo is ended, its stack ends too, and its directory goes."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from native_stack import DEADLINE_S, NativeStack, eventually, native_stack
from qcstack import lifecycle
from qcstack.layout import SERVICES, StackLayout

Moment = Callable[[NativeStack, int], object]


@pytest.fixture
def stack() -> Iterator[NativeStack]:
    with native_stack() as native:
        yield native


def state_of(pid: int) -> Path | None:
    return next(Path("/var/tmp").glob(f"qc-demo-{pid}-*"), None)


def directory_made(_stack: NativeStack, pid: int) -> object:
    return state_of(pid)


def supervisor_born(_stack: NativeStack, pid: int) -> object:
    state = state_of(pid)
    return state and lifecycle.status(StackLayout(state)).supervisor


def service_begins(stack: NativeStack, _pid: int) -> object:
    return stack.events("begins")


def uploading(stack: NativeStack, _pid: int) -> object:
    return stack.events("is sent a body")


def begin_demo(stack: NativeStack, **environment: str) -> "subprocess.Popen[str]":
    guest = stack.journal.with_name("tiny.qcow2")
    guest.write_bytes(b"guest")
    return stack.begin("demo", f"--guest={guest}", **environment)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", [directory_made, supervisor_born, service_begins, uploading])
def test_a_signal_at_any_moment_leaves_nothing(
    stack: NativeStack, moment: Moment, number: signal.Signals
) -> None:
    demo = begin_demo(stack)
    eventually(lambda: moment(stack, demo.pid))
    state = eventually(lambda: state_of(demo.pid))
    demo.send_signal(number)
    demo.send_signal(number)
    output, _ = demo.communicate(timeout=DEADLINE_S)
    assert demo.returncode == 130, output
    assert not state.exists()
    assert_nothing_runs(state)


def test_a_reader_that_goes_away_leaves_nothing(stack: NativeStack) -> None:
    demo = begin_demo(stack)
    assert demo.stdout is not None
    demo.stdout.readline()
    state = state_of(demo.pid)
    demo.stdout.close()
    assert state is not None
    assert demo.wait(DEADLINE_S) != 0
    assert not state.exists()
    assert_nothing_runs(state)


def test_a_gateway_that_breaks_off_leaves_nothing(stack: NativeStack) -> None:
    demo = begin_demo(stack)
    eventually(lambda: stack.events("is sent a body"))
    state = eventually(lambda: state_of(demo.pid))
    gateway = lifecycle.status(StackLayout(state)).services["gateway"].process
    assert gateway is not None
    gateway.signal(signal.SIGKILL)
    output, _ = demo.communicate(timeout=DEADLINE_S)
    assert demo.returncode == 1
    assert "the gateway broke off" in output
    assert not state.exists()


def test_the_stack_of_a_killed_demo_ends_and_the_next_demo_sweeps(stack: NativeStack) -> None:
    demo = begin_demo(stack)
    eventually(lambda: stack.events("is sent a body"))
    state = eventually(lambda: state_of(demo.pid))
    demo.kill()
    demo.communicate(timeout=DEADLINE_S)
    eventually(lambda: len(stack.events("ends")) == len(SERVICES))
    eventually(lambda: lifecycle.status(StackLayout(state)).supervisor is None)
    second = begin_demo(stack)
    eventually(lambda: state_of(second.pid))
    assert not state.exists()
    second.send_signal(signal.SIGINT)
    second.communicate(timeout=DEADLINE_S)


def assert_nothing_runs(state: Path) -> None:
    found = lifecycle.status(StackLayout(state))
    assert found.supervisor is None
    assert found.left == []
