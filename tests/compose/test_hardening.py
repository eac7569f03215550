"""What the containers may do, by what the kernel says of their processes."""

import stat
from pathlib import Path

import pytest
from framework.cloud import Cloud
from framework.containers import SERVICES, Containers, docker, qemu_of

pytestmark = pytest.mark.compose

# linux/capability.h
_NUMBERS = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "NET_BIND_SERVICE": 10,
    "NET_ADMIN": 12,
    "NET_RAW": 13,
}
_ALLOWED = {
    "gateway": (),
    "controller": (),
    "image-store": (),
    "minio": (),
    "qemu-runner": (
        *("NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE", "SETGID", "SETPCAP"),
        *("CHOWN", "DAC_OVERRIDE", "FOWNER"),
    ),
    "vm-host": ("SETUID", "SETGID", "SETPCAP", "KILL"),
}
_ROOT = {"qemu-runner", "vm-host"}


@pytest.mark.parametrize("service", SERVICES)
def test_every_container_is_healthy(containers: Containers, service: str) -> None:
    assert containers.inspect(service)["State"]["Health"]["Status"] == "healthy"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_holds_the_capabilities_with_a_reason_and_no_other(
    containers: Containers, service: str
) -> None:
    status = containers.status(containers.pid(service))
    allowed = sum(1 << _NUMBERS[name] for name in _ALLOWED[service])
    assert int(status["CapBnd"], 16) == allowed
    assert int(status["CapEff"], 16) == (allowed if service in _ROOT else 0)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_gains_no_privilege_and_is_root_only_where_it_must(
    containers: Containers, service: str
) -> None:
    status = containers.status(containers.pid(service))
    assert status["NoNewPrivs"] == "1"
    assert (status["Uid"].split()[0] == "0") == (service in _ROOT)


@pytest.mark.parametrize("service", SERVICES)
def test_a_root_file_system_is_read_only(containers: Containers, service: str) -> None:
    mounts = Path(f"/proc/{containers.pid(service)}/mountinfo").read_text(encoding="utf-8").splitlines()
    (root,) = [line.split() for line in mounts if line.split()[4] == "/"]
    assert "ro" in root[5].split(",")


def test_three_ports_are_published_on_the_loopback_interface_only(containers: Containers) -> None:
    published = {
        (binding["HostIp"], port)
        for service in SERVICES
        for port, bindings in containers.inspect(service)["NetworkSettings"]["Ports"].items()
        for binding in bindings or ()
    }
    assert published == {("127.0.0.1", "8080/tcp"), ("127.0.0.1", "8009/tcp"), ("127.0.0.1", "8010/tcp")}


def test_the_runner_opens_no_port_of_the_host(containers: Containers) -> None:
    own = {str(fd.readlink()) for fd in Path(f"/proc/{containers.runner_pid()}/fd").iterdir()}
    listening = [
        f"socket:[{fields[9]}]"
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text(encoding="ascii").splitlines()[1:]
        if (fields := line.split())[3] == "0A"
    ]
    assert own.isdisjoint(listening)


def test_the_keys_of_the_store_are_mounted_by_those_two_who_need_them(containers: Containers) -> None:
    holders = {
        service
        for service in SERVICES
        for mount in containers.inspect(service)["Mounts"]
        if mount.get("Name", "").endswith("_s3-credentials")
    }
    assert holders == {"minio", "image-store"}


def test_no_key_of_the_store_stands_in_an_environment_or_argument(containers: Containers) -> None:
    root = f"/proc/{containers.pid('minio')}/root/run/qcontroller/s3-credentials"
    keys = [Path(root, name).read_text(encoding="ascii") for name in ("access-key", "secret-key")]
    assert all(len(key) >= 20 for key in keys)
    for service in SERVICES:
        told = docker("container", "inspect", containers.inspect(service)["Id"])
        assert not any(key in told for key in keys)


def test_a_socket_is_its_servers_and_its_edges_and_nobody_elses(containers: Containers) -> None:
    path = Path(f"/proc/{containers.pid('controller')}/root/run/qcontroller/gateway-controller")
    assert _owner(path) == (10002, 11001, 0o2750)
    assert _owner(path / "controller.sock") == (10002, 11001, 0o660)


def test_a_guests_process_finds_no_network_no_privilege_and_a_uid_of_its_own(
    containers: Containers, cloud: Cloud
) -> None:
    with cloud.instance(nics=[]) as instance:
        qemu = qemu_of(instance["id"])
        assert qemu is not None
        status = containers.status(qemu.pid)
        assert int(status["Uid"].split()[0]) >= 64_000
        assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")} == {0}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        devices = Path(f"/proc/{qemu.pid}/net/dev").read_text(encoding="ascii").splitlines()[2:]
        assert [line.split(":")[0].strip() for line in devices] == ["lo"]


def _owner(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)
