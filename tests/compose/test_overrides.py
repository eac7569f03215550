"""The documented overrides, each started once."""

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from framework import guests
from framework.attack import HOSTILE, Target, reached_of, tries
from framework.containers import Containers, client, read_status, running
from framework.stack import eventually, free_ports
from qcstack.answering import StackError

pytestmark = [pytest.mark.compose, pytest.mark.full]


def test_privileged(images: None, capfd: pytest.CaptureFixture[str]) -> None:
    every = int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii"))
    if int(read_status(1)["CapBnd"], 16) != (2 << every) - 1:
        with pytest.raises(StackError), running("qcontroller-privileged", overrides=("privileged",)):
            pytest.fail("this host lacks a capability, and a privileged container started")
        assert "apply caps" in capfd.readouterr().err
        return
    with running("qcontroller-privileged", overrides=("privileged",)) as containers:
        assert containers.inspect("vm-host")["HostConfig"]["Privileged"]


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[str]:
    """Somebody else's bridge, with a dnsmasq that gives addresses of 10.74.0.0/24 to everybody."""
    name = "qct-other"
    _run("ip", "link", "add", name, "type", "bridge")
    try:
        _run("ip", "address", "add", "10.74.0.1/24", "dev", name)
        _run("ip", "link", "set", name, "up")
        leases = tmp_path / "leases"
        server = subprocess.Popen(
            [
                *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--port=0"),
                *(f"--interface={name}", "--bind-interfaces", f"--dhcp-leasefile={leases}", "--user=root"),
                "--dhcp-range=10.74.0.50,10.74.0.99",
            ]
        )
        try:
            yield name
        finally:
            server.terminate()
            server.wait(timeout=10)
    finally:
        _run("ip", "link", "delete", name)


def test_bridge_takes_the_addresses_of_a_dhcp_server_that_is_not_ours(images: None, bridge: str) -> None:
    with running("qcontroller-bridge", overrides=("bridge",), bridge="qct2") as containers:
        with client(containers) as cloud:
            cloud.upload("tiny", guests.tiny())
            with cloud.instance(nics=[{"network": f"bridge:{bridge}"}]) as instance:
                found = eventually(
                    lambda: _addresses(cloud.get(instance["name"])) or None,
                    "an address by DHCP",
                    within_s=120,
                )
        assert [address for address in found if address.startswith("10.74.0.")], found
        assert not Path("/sys/class/net/qct2").exists()


def test_user_net_gives_guests_a_network_without_a_way_to_the_control_plane(images: None) -> None:
    with (
        running("qcontroller-user-net", overrides=("user-net",), bridge="qct3") as containers,
        client(containers) as cloud,
    ):
        cloud.upload("tiny", guests.tiny())
        with cloud.instance() as instance:
            name = instance["name"]
            (nic,) = cloud.wait_ready(name)["status"]["nics"]
            assert (nic["network"], [entry["source"] for entry in nic["addresses"]][:1]) == ("user", ["user"])
            given = nic["addresses"][0]["address"]

            def guest(script: str) -> str:
                answer = cloud.exec(name, "/bin/sh", "-c", script, timeout="60s")
                assert answer["exitCode"] == 0, answer
                return str(answer["stdout"])

            guest(f"until ip -4 addr show eth0 | grep -w {given}; do usleep 100000; done")
            assert _own_address(containers, "vm-host") in guest("nslookup -type=a vm-host")

            bridge = _gateway(containers, "vm-host")
            with socket.create_server((bridge, 0)) as listener:
                # Docker's gateway is the host: what listens on that address is reached, so the probe works.
                control = (bridge, listener.getsockname()[1])
                targets = [*_control_plane(containers, given), control]
                assert reached_of(guest(tries(targets))) == {control}
                guest(HOSTILE)
                assert reached_of(guest(tries(targets))) == {control}
        assert not Path("/sys/class/net/qct3").exists()
        refused = cloud.api.request(
            "POST",
            "/v1/instances",
            json={"name": "open", "image": "tiny", "ports": [{"host": 2222, "guest": 22}]},
        )
        assert refused.status_code == 400
        assert [error["pointer"] for error in refused.json()["errors"]] == ["/ports/0"]


def test_observability_gets_one_trace_from_every_service(images: None) -> None:
    otlp, page = free_ports(2)
    with (
        running(
            "qcontroller-traced",
            overrides=("observability", "tests/compose/collector.yaml"),
            environment={"QC_OTLP_PORT": str(otlp), "QC_TRACES_PORT": str(page)},
        ) as containers,
        client(containers) as cloud,
    ):
        cloud.upload("tiny", guests.tiny())
        trace = "0af7651916cd43dd8448eb211c80319c"
        answer = cloud.api.request(
            "POST",
            "/v1/instances",
            json={"name": "traced", "image": "tiny", "vm": {"cpus": 1, "memory": "256M"}, "nics": []},
            headers={"Prefer": "wait=60", "traceparent": f"00-{trace}-b7ad6b7169203331-01"},
        )
        assert answer.status_code == 201
        wanted = {"gateway", "controller", "image-store", "qemu-runner"}
        eventually(lambda: wanted <= _services(containers, trace), f"spans of {wanted}")


def _addresses(instance: dict[str, Any]) -> list[str]:
    (nic,) = instance["status"]["nics"]
    return [entry["address"] for entry in nic["addresses"] if entry["family"] == "ipv4"]


def _control_plane(containers: Containers, guest: str) -> list[Target]:
    """Return every port of the control plane, on every address that might lead to it."""
    layout = containers.compose.layout
    published = (layout.gateway_port, layout.controller_port, layout.image_store_port)
    # slirp plays the gateway and the name server of the guest's subnet.
    block = guest.rpartition(".")[0]
    addresses = ["127.0.0.1", "127.0.0.2", "0.0.0.0", f"{block}.2", f"{block}.3"]
    addresses += containers.gateways()
    return [*((address, port) for address in addresses for port in published), *containers.inner_doors()]


def _gateway(containers: Containers, service: str) -> str:
    (gateway,) = containers.of_networks(service, "Gateway")
    return gateway


def _own_address(containers: Containers, service: str) -> str:
    (address,) = containers.of_networks(service, "IPAddress")
    return address


def _run(*words: str) -> None:
    subprocess.run(words, check=True)


def _services(containers: Containers, trace: str) -> set[str]:
    spans = [json.loads(line) for line in containers.log("collector")]
    return {span["service"] for span in spans if span["trace"] == trace}
