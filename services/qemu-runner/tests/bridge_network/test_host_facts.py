"""What is read of the host before anything is made on it, and told by the doctor. Changes nothing."""

from pathlib import Path

import pytest
from bridge_network_host import MemoryHost, network_on
from qemu_runner.bridge_network.adapters.facts import HostFacts
from qemu_runner.user_network import CheckStatus


async def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    obstacle = await HostFacts(tun=tmp_path / "tun").tap_obstacle()
    assert obstacle == f"{tmp_path}/tun: No such file or directory"


@pytest.mark.parametrize(("effective", "capable"), [("0000000000001000", True), ("0000000000000fff", False)])
async def test_the_capability_is_read_from_the_effective_set(
    tmp_path: Path, effective: str, capable: bool
) -> None:
    status = tmp_path / "status"
    status.write_text(f"Name:\trunner\nCapPrm:\tffffffffffffffff\nCapEff:\t{effective}\n")
    assert await HostFacts(status=status).has_net_admin() is capable


@pytest.mark.parametrize(
    ("trouble", "name"),
    [
        (MemoryHost(tun="/dev/net/tun: No such file or directory"), "tun"),
        (MemoryHost(missing={"dnsmasq"}), "dnsmasq"),
        # The first thing that is in the way hides no other one from the doctor.
        (MemoryHost(capable=False, missing={"dnsmasq"}), "dnsmasq"),
        (MemoryHost(capable=False), "bridge-network"),
    ],
)
async def test_the_doctor_names_what_is_missing_and_what_to_do(trouble: MemoryHost, name: str) -> None:
    checks = {check.name: check for check in await network_on(trouble).checks()}
    assert checks[name].status is CheckStatus.FAIL
    assert checks[name].fix
    assert checks["bridge-network"].status is CheckStatus.FAIL


async def test_the_doctor_is_content_with_a_whole_host() -> None:
    checks = {check.name: check.status for check in await network_on(MemoryHost()).checks()}
    assert (checks["tun"], checks["dnsmasq"]) == (CheckStatus.PASS, CheckStatus.PASS)
