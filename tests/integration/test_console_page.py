"""The page of a serial console in a real browser, with a real guest."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from framework.browser import Browser, program
from framework.cloud import Cloud, Document
from framework.console import Console
from framework.stack import eventually

CHECKOUT = Path(__file__).parents[2]
TEXT = "document.querySelector('.xterm-rows').textContent.replaceAll('\\u00a0', ' ')"
STATE = "document.documentElement?.dataset.state"
WRITER = "document.documentElement?.dataset.writer"


@pytest.fixture(scope="module")
def guest(cloud: Cloud) -> Iterator[Document]:
    """A guest with a shell on its console, whose agent answers."""
    made = subprocess.run([str(CHECKOUT / "tools" / "console-page")], check=False)
    if made.returncode == 3 or program() is None:
        pytest.skip("npm or chromium is missing: `make test-setup` installs them")
    assert made.returncode == 0
    instance = cloud.launch_ready()
    yield instance
    cloud.delete(instance["name"])


def page_of(cloud: Cloud, guest: Document) -> str:
    return f"{cloud.stack.base_url}/v1/instances/{guest['name']}/console/page?viewer=page"


def test_a_page_shows_the_console_types_and_takes_over(cloud: Cloud, guest: Document) -> None:
    name = guest["name"]
    with Browser() as browser:
        browser.open(page_of(cloud, guest))
        browser.until(f"{STATE} === 'open' && {WRITER} === 'true'")
        browser.type("echo from-a-''page > /run/page; cat /run/page\n")
        browser.until(f"{TEXT}.includes('from-a-page')")
        assert cloud.exec(name, "/bin/cat", "/run/page")["stdout"] == "from-a-page\n"
        # The size of its window is the terminal's.
        browser.type("stty size\n")
        size = cloud.exec(name, "/bin/sh", "-c", "stty -F /dev/ttyS0 size")["stdout"].split()
        assert int(size[0]) > 20
        assert int(size[1]) > 60

        # Somebody else takes over, and the page takes it back.
        with Console(cloud.stack, name, write="true", force="true", viewer="ada") as ada:
            browser.until(f"{WRITER} === 'false' && document.body.textContent.includes('ada took over')")
            browser.type("touch /run/refused\n")
            ada.run("echo ada-''writes")
            browser.until(f"{TEXT}.includes('ada-writes')")
            browser.value("document.getElementById('take').click()")
            browser.until(f"{WRITER} === 'true'")
            while not ada.until("role")["lost"]:
                pass
        browser.type("ls /run/refused 2>&1; echo behind-''it\n")
        browser.until(f"{TEXT}.includes('behind-it')")
        assert "No such file" in browser.value(TEXT)
        assert browser.complaints() == []


def test_a_page_comes_back_by_itself_at_its_offset(cloud: Cloud, guest: Document) -> None:
    with Browser() as browser:
        browser.open(page_of(cloud, guest))
        browser.until(f"{STATE} === 'open' && {WRITER} === 'true'")
        browser.type("clear; echo on''ce\n")
        browser.until(f"{TEXT}.includes('once')")
        cloud.stack.kill_and_wait_restarted("qemu-runner")

        def types_again() -> bool | None:
            # What is typed before the page has noticed is lost, and the page is told nothing of that.
            browser.type("echo aga''in\n")
            return browser.value(f"{TEXT}.includes('again')") or None

        eventually(types_again, "the page types again")
        assert browser.value(TEXT).count("once") == 1


def test_a_page_of_nothing_says_so(cloud: Cloud, guest: Document) -> None:
    del guest
    with Browser() as browser:
        browser.open(f"{cloud.stack.base_url}/v1/instances/absent/console/page")
        browser.until(f"{STATE} === 'ended'")
        assert "absent" in browser.value("document.getElementById('notice').textContent")


def test_the_page_loads_nothing_from_elsewhere_and_nothing_inline(cloud: Cloud, guest: Document) -> None:
    answer = httpx.get(page_of(cloud, guest))
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "default-src 'none';" in policy
    assert "<script>" not in answer.text
    assert "//" not in answer.text.replace("<!DOCTYPE html>", "")
