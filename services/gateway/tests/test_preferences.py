"""Prefer, Accept, entity tags and ranges."""

import pytest
from gateway.errors import RangeError
from gateway.preferences import ByteRange, accepts, is_fresh, range_of, tags_of, wait_of
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("prefer", "wait_s"),
    [
        ("wait=10", 10),
        ("WAIT = 10", 10),
        ('wait="10"', 10),
        ("respond-async, wait=10", 10),
        ("respond-async,wait=10;foo=bar", 10),
        ("wait=10, wait=20", 10),
        ("wait=0", 0),
        ("wait=9999", 600),
        ("", None),
        ("wait", None),
        ("wait=", None),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("wait=60s", None),
        ("wait=٣", None),
        ("waiting=10", None),
        (",,;=", None),
    ],
)
def test_wait_is_read_or_ignored(prefer: str, wait_s: int | None) -> None:
    assert wait_of(prefer) == wait_s


@given(st.text())
def test_no_header_makes_a_parser_fail(text: str) -> None:
    wait_of(text)
    accepts(text, ("application/json",))
    tags_of(text)


@pytest.mark.parametrize(
    ("accept", "accepted"),
    [
        ("", True),
        ("*/*", True),
        ("application/json", True),
        ("application/*;q=0.1", True),
        ("text/html, application/json;q=0.5", True),
        ("text/html", False),
        ("application/json;q=0", False),
        ("application/json;q=0, */*", False),
        ("text/html, */*;q=0.1", True),
    ],
)
def test_accept_is_weighed(accept: str, accepted: bool) -> None:
    assert accepts(accept, ("application/json",)) is accepted


@pytest.mark.parametrize(
    ("header", "fresh"),
    [('"a"', True), ('W/"a"', True), ('"b", "a"', True), ("*", True), ('"b"', False), ("a", False)],
)
def test_an_entity_tag_is_compared_weakly(header: str, fresh: bool) -> None:
    assert is_fresh(header, "a") is fresh


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-0", ByteRange(0, 0, 10)),
        ("bytes=8-20", ByteRange(8, 9, 10)),
        ("bytes=-3", ByteRange(7, 9, 10)),
        ("bytes=-30", ByteRange(0, 9, 10)),
        ("bytes=5-4", None),
        ("bytes=a-b", None),
        ("bytes=0-1,3-4", None),
    ],
)
def test_one_range_is_read(header: str, span: ByteRange | None) -> None:
    assert range_of(header, 10) == span


@pytest.mark.parametrize(("header", "total"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=-1", 0)])
def test_a_range_outside_is_refused(header: str, total: int) -> None:
    with pytest.raises(RangeError):
        range_of(header, total)
