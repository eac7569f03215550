"""The page of consoles: built or not, it is the gateway's own, under a strict policy."""

from pathlib import Path

import pytest
from gateway import console_page
from gateway_fakes import Stand
from httpx import ASGITransport, AsyncClient, Response

PAGE = "/v1/instances/web-1/console/page"
FILES = ("xterm.js", "xterm.css", "addon-fit.js", "LICENSE.xterm", "LICENSE.addon-fit")


async def get(rest: Stand, path: str) -> Response:
    transport = ASGITransport(app=rest.app)
    # Pages are no part of the contract.
    async with AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.get(path)


@pytest.fixture
def vendored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where xterm.js lies once it is built."""
    monkeypatch.setattr(console_page, "VENDORED", tmp_path)
    return tmp_path


def build(vendored: Path) -> None:
    for name in FILES:
        (vendored / name).write_text(f"/* {name} */", encoding="utf-8")


async def test_a_built_page_is_served_with_its_files(rest: Stand, vendored: Path) -> None:
    build(vendored)
    page = await get(rest, PAGE)
    assert page.status_code == 200
    assert "/v1/console/xterm.js" in page.text
    for name in (*FILES, "console.js", "console.css"):
        answer = await get(rest, f"/v1/console/{name}")
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_an_unbuilt_page_says_what_to_run(rest: Stand, vendored: Path) -> None:
    del vendored
    page = await get(rest, PAGE)
    assert page.status_code == 200
    assert "tools/console-page" in page.text
    assert (await get(rest, "/v1/console/xterm.js")).status_code == 404


async def test_nothing_inline_runs_and_nothing_comes_from_elsewhere(rest: Stand, vendored: Path) -> None:
    build(vendored)
    page = await get(rest, PAGE)
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "<script>" not in page.text
    assert " on" not in page.text.split("<body>")[1].replace(" one", "")
    assert "http" not in page.text


@pytest.mark.parametrize("name", ["console.html", ".content", "..%2Fapp.py", "xterm.js.map"])
async def test_no_other_file_is_served(rest: Stand, vendored: Path, name: str) -> None:
    build(vendored)
    answer = await get(rest, f"/v1/console/{name}")
    assert (answer.status_code, answer.json()["reason"]) == (404, "PATH_NOT_FOUND")
