"""The small guest, really booted: every claim is read from the guest, its console or the machine's end."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from guest_machine import ANSWER_DEADLINE_S, Machine, machine, seed_disk

BUILDER = Path(__file__).resolve().parents[1] / "build"
BUILD_DEADLINE_S = 300

# An unloaded host takes three seconds; two shared cores may take many times that.
AGENT_DEADLINE_S = 60.0
POWER_OFF_DEADLINE_S = 20.0

USER_DATA = """\
#cloud-config
hostname: from-user-data
write_files:
  - path: /opt/deep/literal.txt
    content: |
      first "line"
      second 'line'
    permissions: '0600'
  - {path: /opt/decoded, encoding: b64, content: aGVsbG8K, permissions: 0755}
  - path: /opt/appended
    content: one
  - path: /opt/appended
    content: two
    append: true
runcmd:
  - echo "sum $((20 + 22))" > /opt/string
  - [sh, -c, 'echo "$0,$1" > /opt/list', "it's", b c]
  - echo said on the console
  - httpd -f -p 8000 -h /opt &
packages: [ignored]
"""
META_DATA = "instance-id: i-123\nlocal-hostname: from-meta-data\n"


def build(output: Path | None = None) -> Path:
    """Run the builder as a user would and return the path it prints last."""
    argv = [str(BUILDER)] if output is None else [str(BUILDER), "--output", str(output)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=BUILD_DEADLINE_S, check=True)
    return Path(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def image() -> Path:
    """Return the image from the default cache, built if need be."""
    return build()


@pytest.fixture(scope="module")
def guest(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Return one running guest with an ISO seed, for the claims that do not end it."""
    directory = tmp_path_factory.mktemp("guest")
    seed = seed_disk(directory, user_data=USER_DATA, meta_data=META_DATA)
    with machine(image, directory, seed=seed) as running:
        running.wait_agent(AGENT_DEADLINE_S)
        running.console.expect(r"^qcontroller-phase: cloud-init ")
        running.console.expect(r"^qcontroller-phase: network ")
        yield running


def read(guest: Machine, path: str) -> str:
    status, text = guest.exec("/bin/cat", path)
    assert status == 0, text
    return text


def test_the_image_is_below_forty_megabytes(image: Path) -> None:
    assert image.stat().st_size < 40_000_000


def test_the_file_name_says_that_the_guest_is_tiny(image: Path) -> None:
    assert "tiny" in image.name


def test_a_second_build_gives_the_same_file_untouched(image: Path) -> None:
    before = image.stat()
    assert build(image.parent) == image
    assert (image.stat().st_ino, image.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_the_image_has_no_backing_file(image: Path) -> None:
    done = subprocess.run(["qemu-img", "info", "--output=json", image], capture_output=True, check=True)
    assert "backing-filename" not in json.loads(done.stdout)


def test_the_console_begins_with_the_kernels_first_line(guest: Machine) -> None:
    assert guest.console.expect(r"\[ +0\.000000\] Linux version \S+-cloud-amd64").start() < 200


def test_boot_phases_come_with_rising_uptimes(guest: Machine) -> None:
    uptimes = [
        float(guest.console.expect(rf"^qcontroller-phase: {phase} uptime=([\d.]+)").group(1))
        for phase in ("userspace", "agent", "cloud-init")
    ]
    assert uptimes == sorted(uptimes)


def test_the_agent_knows_the_operating_system(guest: Machine) -> None:
    assert guest.ask_agent("guest-get-osinfo")["id"] == "qcontroller-tiny"


def test_a_command_runs_and_its_status_comes_back(guest: Machine) -> None:
    assert guest.exec("/bin/sh", "-c", "echo out; echo err >&2; exit 7") == (7, "out\nerr\n")


def test_the_agent_reports_the_address_from_dhcp(guest: Machine) -> None:
    interfaces = guest.ask_agent("guest-network-get-interfaces")
    addresses = [a["ip-address"] for i in interfaces for a in i.get("ip-addresses", [])]
    assert "10.0.2.15" in addresses


def test_the_nic_is_found_behind_its_root_port(guest: Machine) -> None:
    _, path = guest.exec("/bin/readlink", "-f", "/sys/class/net/eth0/device")
    bridge_and_device = [part for part in path.split("/") if part.startswith("0000:")]
    assert len(bridge_and_device) == 2


def test_the_host_name_comes_from_user_data(guest: Machine) -> None:
    assert guest.ask_agent("guest-get-host-name")["host-name"] == "from-user-data"


def test_a_literal_file_is_written_as_it_stands(guest: Machine) -> None:
    assert read(guest, "/opt/deep/literal.txt") == "first \"line\"\nsecond 'line'\n"


def test_a_written_file_has_its_permissions(guest: Machine) -> None:
    assert guest.exec("/bin/stat", "-c", "%a", "/opt/deep/literal.txt") == (0, "600\n")


def test_an_unquoted_mode_is_octal(guest: Machine) -> None:
    assert guest.exec("/bin/stat", "-c", "%a", "/opt/decoded") == (0, "755\n")


def test_base64_content_is_decoded(guest: Machine) -> None:
    assert read(guest, "/opt/decoded") == "hello\n"


def test_content_can_be_appended(guest: Machine) -> None:
    assert read(guest, "/opt/appended") == "onetwo"


def test_a_string_command_is_a_shell_line(guest: Machine) -> None:
    assert read(guest, "/opt/string") == "sum 42\n"


def test_a_list_command_is_an_argument_vector(guest: Machine) -> None:
    assert read(guest, "/opt/list") == "it's,b c\n"


def test_what_runcmd_says_is_on_the_console(guest: Machine) -> None:
    guest.console.expect("^said on the console$", ANSWER_DEADLINE_S)


def test_a_server_left_by_runcmd_serves(guest: Machine) -> None:
    assert guest.exec("/usr/bin/wget", "-q", "-O", "-", "http://127.0.0.1:8000/string") == (0, "sum 42\n")


def test_an_ignored_key_is_named_on_the_console(guest: Machine) -> None:
    guest.console.expect("^nocloud: ignored, not in the subset: packages$", ANSWER_DEADLINE_S)


def test_the_result_has_cloud_inits_form(guest: Machine) -> None:
    result = json.loads(read(guest, "/run/cloud-init/result.json"))
    assert result["v1"]["errors"] == []
    assert result["v1"]["datasource"].startswith("DataSourceNoCloud")


def test_a_listener_in_the_guest_accepts(guest: Machine) -> None:
    listening = "until netstat -ltn | grep -q :9000; do :; done"
    script = f"echo through | nc -l -p 9000 & {listening}; nc -w 5 127.0.0.1 9000 < /dev/null"
    assert guest.exec("/bin/sh", "-c", script) == (0, "through\n")


def test_a_range_of_ports_can_be_probed(guest: Machine) -> None:
    status, text = guest.exec("/bin/nc.openbsd", "-n", "-z", "-v", "-w", "1", "127.0.0.1", "7999-8001")
    assert status == 0, text
    assert [line for line in text.splitlines() if "succeeded" in line] == [
        "Connection to 127.0.0.1 8000 port [tcp/*] succeeded!"
    ]


def test_a_udp_datagram_is_answered(guest: Machine) -> None:
    server = "mkfifo /tmp/echo; nc.openbsd -u -l 9001 0<> /tmp/echo > /tmp/echo 2> /dev/null &"
    listening = "until netstat -lun | grep -q :9001; do :; done"
    script = f"{server} {listening}; echo there and back | nc.openbsd -n -u -W 1 127.0.0.1 9001"
    assert guest.exec("/bin/sh", "-c", script) == (0, "there and back\n")


def test_the_serial_console_is_a_shell(guest: Machine) -> None:
    since = len(guest.console.text)
    guest.console.send("echo $((6 * 7))-typed")
    guest.console.expect("^42-typed$", ANSWER_DEADLINE_S, since=since)


def test_the_power_button_powers_off(image: Path, tmp_path: Path) -> None:
    with machine(image, tmp_path) as running:
        running.wait_agent(AGENT_DEADLINE_S)
        running.console.expect(r"^qcontroller-phase: cloud-init ")
        running.command("system_powerdown")
        running.event("SHUTDOWN", POWER_OFF_DEADLINE_S, guest=True, reason="guest-shutdown")
        assert running.wait_exit() == 0


def test_the_agents_shutdown_powers_off(image: Path, tmp_path: Path) -> None:
    with machine(image, tmp_path, nic=False) as running:
        running.wait_agent(AGENT_DEADLINE_S)
        running.agent.send({"execute": "guest-shutdown"})
        running.event("SHUTDOWN", POWER_OFF_DEADLINE_S, guest=True, reason="guest-shutdown")
        assert running.wait_exit() == 0


def test_a_reboot_brings_the_agent_back_under_a_new_boot_id(image: Path, tmp_path: Path) -> None:
    with machine(image, tmp_path) as running:
        running.wait_agent(AGENT_DEADLINE_S)
        before = read(running, "/proc/sys/kernel/random/boot_id")
        running.agent.send({"execute": "guest-shutdown", "arguments": {"mode": "reboot"}})
        running.event("RESET", POWER_OFF_DEADLINE_S, guest=True)
        running.event("VSERPORT_CHANGE", POWER_OFF_DEADLINE_S, id="agent", open=False)
        running.wait_agent(AGENT_DEADLINE_S)
        assert read(running, "/proc/sys/kernel/random/boot_id") != before


def test_a_file_below_persist_survives_a_power_cycle(image: Path, tmp_path: Path) -> None:
    with machine(image, tmp_path) as running:
        running.wait_agent(AGENT_DEADLINE_S)
        running.console.expect(r"^qcontroller-phase: cloud-init ")
        assert running.exec("/bin/sh", "-c", "echo kept > /persist/note")[0] == 0
        running.command("system_powerdown")
        assert running.wait_exit() == 0
    with machine(image, tmp_path) as running:
        running.wait_agent(AGENT_DEADLINE_S)
        running.console.expect(r"^qcontroller-phase: cloud-init ")
        assert read(running, "/persist/note") == "kept\n"


def test_a_machine_without_a_nic_boots(image: Path, tmp_path: Path) -> None:
    with machine(image, tmp_path, nic=False) as running:
        running.wait_agent(AGENT_DEADLINE_S)
        running.console.expect(r"^qcontroller-phase: cloud-init \S+ result=ok")
        assert [i["name"] for i in running.ask_agent("guest-network-get-interfaces")] == ["lo"]


def test_a_nic_plugged_later_gets_its_address(image: Path, tmp_path: Path) -> None:
    with machine(image, tmp_path, nic=False) as running:
        running.wait_agent(AGENT_DEADLINE_S)
        running.command("netdev_add", type="user", id="late", restrict=True)
        running.command("device_add", driver="virtio-net-pci", bus="port0", netdev="late", romfile="")
        running.console.expect(r"^qcontroller-phase: network \S+ interface=eth0 address=10\.0\.2\.15$")


def test_it_boots_in_128_mib(image: Path, tmp_path: Path) -> None:
    with machine(image, tmp_path, memory_mib=128) as running:
        running.wait_agent(AGENT_DEADLINE_S)
        running.console.expect(r"^qcontroller-phase: cloud-init \S+ result=ok")


def test_a_script_on_a_fat_seed_is_executed(image: Path, tmp_path: Path) -> None:
    user_data = "#!/bin/sh\necho from the script > /tmp/made\n"
    seed = seed_disk(tmp_path, user_data=user_data, meta_data=META_DATA, kind="vfat")
    with machine(image, tmp_path, seed=seed) as running:
        running.wait_agent(AGENT_DEADLINE_S)
        running.console.expect(r"^qcontroller-phase: cloud-init \S+ result=ok")
        assert read(running, "/tmp/made") == "from the script\n"
        assert running.ask_agent("guest-get-host-name")["host-name"] == "from-meta-data"


@pytest.mark.parametrize(
    ("user_data", "complaint"),
    [
        ("#cloud-config\nruncmd: [unclosed\n", "user-data: "),
        ("#cloud-config\nruncmd: [exit 3]\n", "ended with status 3"),
        ("Content-Type: multipart/mixed\n", "neither #cloud-config nor #!"),
    ],
)
def test_faulty_user_data_is_an_error_in_the_result(
    image: Path, tmp_path: Path, user_data: str, complaint: str
) -> None:
    seed = seed_disk(tmp_path, user_data=user_data, meta_data=META_DATA)
    with machine(image, tmp_path, seed=seed, nic=False) as running:
        running.wait_agent(AGENT_DEADLINE_S)
        running.console.expect(r"^qcontroller-phase: cloud-init \S+ result=error")
        (error,) = json.loads(read(running, "/run/cloud-init/result.json"))["v1"]["errors"]
        assert complaint in error
