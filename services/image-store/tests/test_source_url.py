"""URLs, read strictly."""

import pytest
from image_store.errors import InvalidRequestError
from image_store.fetching.source_url import SourceUrl


@pytest.mark.parametrize(
    ("text", "authority", "target"),
    [
        ("https://example.org/disk.qcow2", "example.org", "/disk.qcow2"),
        ("HTTP://Example.ORG", "example.org", "/"),
        ("https://example.org:8443/a?b=c#d", "example.org:8443", "/a?b=c"),
        ("https://example.org:443/a", "example.org", "/a"),
        ("http://[2606:4700::1111]:8080/a", "[2606:4700::1111]:8080", "/a"),
        ("http://0x7f000001/", "0x7f000001", "/"),
    ],
)
def test_a_url_is_taken_apart(text: str, authority: str, target: str) -> None:
    url = SourceUrl.parse(text)
    assert (url.authority, url.target) == (authority, target)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "disk.qcow2",
        "//example.org/a",
        "file:///etc/passwd",
        "ftp://example.org/a",
        "gopher://example.org/",
        "http://",
        "http:///a",
        "http://example.org:0/",
        "http://example.org:65536/",
        "http://example.org:x/",
        "http://exa mple.org/",
        "http://example.org/a b",
        "http://example.org/\r\nHost: other",
        "http://example.org\\@127.0.0.1/",
        "http://bücher.example/",
        "http://[::1",
        "http://[fe80::1%25eth0]/",
        "http://exam$ple.org/",
        "http://" + "a" * 300 + "/",
        "http://example.org/" + "a" * 5000,
    ],
)
def test_what_clients_read_differently_is_no_url(text: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        SourceUrl.parse(text)
    assert [fault.pointer for fault in caught.value.faults] == ["/url"]


def test_userinfo_and_query_are_shown_nowhere() -> None:
    url = SourceUrl.parse("https://me:pass@example.org/disk?signature=abc")
    assert url.shown == "https://example.org/disk?…"
    assert not any(secret in f"{url!r} {url.shown}" for secret in ("pass", "abc", "me:"))


def test_a_fault_repeats_nothing_of_the_url() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        SourceUrl.parse("ftp://me:secret@example.org/?secret")
    assert "secret" not in str(caught.value)


def test_credentials_stay_with_their_server() -> None:
    url = SourceUrl.parse("https://me:p%40ss@example.org/disk")
    assert url.authorization == "Basic bWU6cEBzcw=="
    assert url.follow("/other").authorization == url.authorization
    assert url.follow("https://example.org/other").authorization == url.authorization
    assert url.follow("https://example.com/other").authorization == ""
    assert url.follow("http://example.org/other").authorization == ""
    assert url.follow("https://example.org:8443/other").authorization == ""


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://example.org/", "http://[::1", "http://a b/"]
)
def test_a_redirect_leads_to_urls_only(location: str) -> None:
    with pytest.raises(InvalidRequestError):
        SourceUrl.parse("https://example.org/disk").follow(location)
