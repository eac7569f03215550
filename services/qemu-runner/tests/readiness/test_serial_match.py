"""Regular expressions on console bytes: found across pieces, bounded whatever guest and user say."""

import pytest
from qemu_runner.readiness.serial_match import MAX_LINE_BYTES, ExpressionError, SerialMatch


def test_a_prompt_without_a_lines_end_is_found() -> None:
    assert SerialMatch("login:").feed(b"Debian 12\r\nweb-1 login: ") == "web-1 login: "


def test_what_comes_in_pieces_is_found_once_it_is_whole() -> None:
    match = SerialMatch("^login: $")
    assert [match.feed(bytes([byte])) for byte in b"x login: \nlogin:"] == [None] * 16
    assert match.feed(b" ") == "login: "


def test_no_match_spans_two_lines() -> None:
    assert SerialMatch(r"a\s+b").feed(b"a\nb\n") is None
    assert SerialMatch("(?s)a.b").feed(b"a\nb\n") is None


def test_bytes_that_are_no_text_do_not_hide_what_follows() -> None:
    assert SerialMatch("ready").feed(b"\xff\xfe\x00\n\x80ready\n") == "\ufffdready"


def test_only_the_beginning_of_a_line_is_kept() -> None:
    match = SerialMatch("end")
    for _ in range(64):
        assert match.feed(b"x" * 65_536) is None
    assert match.feed(b"end\n") is None, "beyond the bound of a line"
    assert match.feed(b"y" * (MAX_LINE_BYTES - 3) + b"end\n") is not None


def test_a_forgotten_line_does_not_go_on() -> None:
    match = SerialMatch("login:")
    match.feed(b"log")
    match.forget()
    assert match.feed(b"in:") is None


def test_an_expression_that_would_backtrack_without_end_ends() -> None:
    assert SerialMatch("(a*)*b").feed(b"a" * 1_000_000) is None


@pytest.mark.parametrize(
    "expression", ["(", "a)|(b", "[z-a]", r"(a)\1", "(?=a)", "x{1001}", "((a{99}){99}){99}"]
)
def test_what_does_not_compile_is_refused(expression: str) -> None:
    with pytest.raises(ExpressionError):
        SerialMatch(expression)
