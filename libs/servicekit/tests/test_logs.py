"""What the log keeps silent about."""

import contextvars
import logging
from collections.abc import Iterator

import pytest
from opentelemetry.context import attach, detach, get_current
from servicekit.logs import configure_logs


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_context_left_from_elsewhere_is_no_news(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("test", "")
    detach(contextvars.copy_context().run(attach, get_current()))
    assert capsys.readouterr().err == ""


def test_another_fault_of_the_context_is(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("test", "")
    token = attach(get_current())
    detach(token)
    detach(token)
    assert "Failed to detach context" in capsys.readouterr().err
