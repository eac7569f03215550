"""What becomes of the stack and of its guests when the engine that runs its containers ends, and comes back.

Engine, stack and the world that the guests speak to are in network namespaces of the test's own. Needs root.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from framework.engine import Engine, engine_in
from framework.site import Site, containers_site
from framework.stack import eventually
from framework.talk import Talk
from qcstack.answering import wait_answering
from qcstack.doctor import engine_check
from user_network_world import WORLD, made_world

pytestmark = [pytest.mark.compose, pytest.mark.netns]

NICS = [{"network": "qc0"}]


def test_with_live_restore_a_guest_and_its_connection_outlive_the_engine(
    engine_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with made_world() as world, engine_in(world, data=engine_data, live_restore=True) as engine:
        engine.start()
        assert _check(engine, monkeypatch)["status"] == "PASS"
        with containers_site(world, engine) as site:
            guest = site.launch_ready("outlives", nics=NICS)
            boot = site.inside(lambda: site.cloud.boot_id("outlives"))
            with world.listen(world.world, WORLD, 9001) as listener:
                site.run("outlives", f"nc {WORLD} 9001 -e /bin/cat >/dev/null 2>&1 </dev/null &")
                listener.settimeout(30)
                connection, _ = listener.accept()
            with Talk(connection) as talk:
                engine.stop()
                assert site.stack.qemu_processes(guest["id"])
                talk.assert_goes_on()
                engine.start()
                _wait_answering(site)
                site.inside(lambda: site.cloud.wait_ready("outlives"))
                assert site.inside(lambda: site.cloud.boot_id("outlives")) == boot
                for verb, state in (("pause", "PAUSED"), ("resume", "RUNNING")):
                    assert _verb(site, "outlives", verb)["status"]["state"] == state
                talk.assert_goes_on()
            site.delete("outlives")
            assert site.inside(site.cloud.leaks) == []


@pytest.fixture(scope="module")
def ending(engine_data: Path) -> Iterator[tuple[Site, Engine]]:
    """A stack whose engine takes its containers along."""
    with made_world() as world, engine_in(world, data=engine_data) as engine:
        engine.start()
        with containers_site(world, engine) as site:
            yield site, engine


@pytest.mark.full
def test_the_doctor_warns_of_an_engine_without_live_restore(
    ending: tuple[Site, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, engine = ending
    check = _check(engine, monkeypatch)
    assert (check["status"], "live-restore" in check["fix"]) == ("WARN", True)


@pytest.mark.full
def test_without_live_restore_a_guest_is_powered_down_with_the_engine_and_can_be_started_again(
    ending: tuple[Site, Engine],
) -> None:
    site, engine = ending
    guest = site.launch_ready("powered-down", nics=NICS)
    boot = site.inside(lambda: site.cloud.boot_id("powered-down"))
    engine.stop()
    assert site.stack.qemu_processes(guest["id"]) == []
    engine.start()
    _wait_answering(site)
    found = _settled(site, "powered-down")
    assert (found["status"]["state"], found["desiredPower"]) == ("STOPPED", "RUNNING")
    assert found["status"]["reason"] == "HOST_SHUTDOWN"
    _starts_again(site, "powered-down", boot)


@pytest.mark.full
def test_an_engine_that_was_killed_powers_a_guest_down_when_it_comes_back_and_starts_the_stack_again(
    ending: tuple[Site, Engine],
) -> None:
    site, engine = ending
    guest = site.launch_ready("found", nics=NICS)
    boot = site.inside(lambda: site.cloud.boot_id("found"))
    engine.kill()
    assert site.stack.qemu_processes(guest["id"]), "nobody has ended it yet"
    engine.start()
    assert site.stack.qemu_processes(guest["id"]) == []
    _wait_answering(site)
    found = _settled(site, "found")
    assert (found["status"]["state"], found["desiredPower"]) == ("STOPPED", "RUNNING")
    assert found["status"]["reason"] == "HOST_SHUTDOWN"
    _starts_again(site, "found", boot)


def _check(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    with monkeypatch.context() as patch:
        for name, value in engine.environment.items():
            patch.setenv(name, value)
        return dict(engine_check())


def _wait_answering(site: Site) -> None:
    site.inside(lambda: wait_answering(site.stack.layout))


def _verb(site: Site, name: str, verb: str) -> dict[str, Any]:
    return site.inside(lambda: site.cloud.verb(name, verb))


def _settled(site: Site, name: str) -> dict[str, Any]:
    """Return the instance as soon as it is not told to run any more."""

    def look() -> dict[str, Any] | None:
        found = site.get(name)
        return found if found["status"]["state"] != "RUNNING" else None

    return eventually(look, f"{name} is no longer told to run")


def _starts_again(site: Site, name: str, before: str) -> None:
    assert _verb(site, name, "start")["status"]["state"] == "RUNNING"
    site.inside(lambda: site.cloud.wait_ready(name))
    assert site.inside(lambda: site.cloud.boot_id(name)) != before
    site.delete(name)
    assert site.inside(site.cloud.leaks) == []
