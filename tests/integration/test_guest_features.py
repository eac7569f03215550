"""What the API does inside a guest, all of it in one, and looked at from inside it."""

import base64
import hashlib
import itertools
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import pytest
from framework.cloud import Cloud, Document, document
from framework.stack import eventually
from websockets.sync.client import ClientConnection, connect

# No multiple of any piece that it travels in.
CONTENT: Final = bytes(range(256)) * 5000 + b"and no power of two"
DIGEST: Final = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
_WITHIN_S: Final = 60.0
_SHARED: Final = "features"


@pytest.fixture(scope="module")
def guest(cloud: Cloud) -> Iterator[str]:
    """The instance that the tests of this module share, by name."""
    cloud.launch_ready(_SHARED)
    eventually(lambda: shell(cloud, _SHARED, "hostname").strip() == _SHARED, "the guest has got its name")
    yield _SHARED
    cloud.delete(_SHARED)


def shell(cloud: Cloud, name: str, script: str) -> str:
    """Return what a script of the guest's shell says; it must succeed."""
    answer = cloud.exec(name, "/bin/sh", "-c", script)
    assert answer["exitCode"] == 0, answer
    return str(answer["stdout"])


def exec_plain(cloud: Cloud, name: str, *argv: str, **more: object) -> httpx.Response:
    return cloud.api.request("POST", f"/v1/instances/{name}/exec", json={"argv": argv, **more})


def push(cloud: Cloud, name: str, path: str, content: bytes = CONTENT, **wish: str) -> httpx.Response:
    return cloud.api.request(
        "PUT", f"/v1/instances/{name}/files", params={"path": path, **wish}, content=content
    )


def pull(cloud: Cloud, name: str, path: str) -> httpx.Response:
    return cloud.api.request("GET", f"/v1/instances/{name}/files", params={"path": path})


def in_guest(cloud: Cloud, name: str, what: str, **body: object) -> httpx.Response:
    return cloud.api.request("POST", f"/v1/instances/{name}/guest/{what}", json=body)


def refusal(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, str(document(response)["reason"])


@contextmanager
def run_by_socket(cloud: Cloud, name: str, **request: object) -> Iterator[ClientConnection]:
    """Begin a program over WebSocket; its messages are read by `message`."""
    url = f"{cloud.stack.base_url.replace('http', 'ws', 1)}/v1/instances/{name}/exec"
    with connect(url, open_timeout=_WITHIN_S) as socket:
        socket.send(json.dumps(request))
        yield socket


def message(cloud: Cloud, socket: ClientConnection, schema: str = "ExecMessage") -> Document:
    """Return the next message, which must be of the schema."""
    told: Document = json.loads(socket.recv(timeout=_WITHIN_S))
    cloud.api.contract.check_value(told, cloud.api.contract.schema(schema), "message")
    return told


def condition(cloud: Cloud, name: str, kind: str) -> Document:
    conditions: list[dict[str, Any]] = cloud.get(name)["status"]["conditions"]
    return next(one for one in conditions if one["type"] == kind)


def replace_agent(cloud: Cloud, name: str, program: str) -> None:
    """Have `program` run in the place of the guest's agent, which is ended once it has answered."""
    place = shell(cloud, name, "command -v qemu-ga").strip()
    assert push(cloud, name, place, program.encode(), mode="0755").status_code == 200
    shell(cloud, name, "(sleep 1; killall qemu-ga) < /dev/null > /dev/null 2>&1 &")


# Who the guest is


def test_a_guest_tells_who_it_is_and_how_it_does(cloud: Cloud, guest: str) -> None:
    response = cloud.api.request("GET", f"/v1/instances/{guest}/guest")
    assert response.status_code == 200, response.text
    report = document(response)
    assert report["os"]["kernelRelease"] == shell(cloud, guest, "uname -r").strip()
    assert report["hostname"] == shell(cloud, guest, "hostname").strip()
    mac = shell(cloud, guest, "cat /sys/class/net/eth0/address").strip()
    assert mac in {interface.get("mac") for interface in report["interfaces"]}
    assert 100 * 2**20 < report["memory"]["totalBytes"] < 256 * 2**20
    eventually(
        lambda: cloud.get(guest)["status"]["guest"]["hostname"] == report["hostname"],
        "what was told is in the instance",
    )


# Programs


def test_a_program_gets_its_environment_and_its_input_and_its_end_is_told(cloud: Cloud, guest: str) -> None:
    script = 'echo "$WHO"; cat; echo no >&2; exit 7'
    answer = cloud.exec(guest, "/bin/sh", "-c", script, env={"WHO": "me"}, stdin="said to it")
    assert answer == {"exitCode": 7, "stdout": "me\nsaid to it", "stderr": "no\n", "truncated": False}


def test_output_that_is_no_text_is_told_in_base64(cloud: Cloud, guest: str) -> None:
    answer = cloud.exec(guest, "printf", r"\377\000")
    assert base64.b64decode(answer["stdoutBase64"]) == b"\xff\x00"


def test_a_program_that_outlives_its_time_is_ended(cloud: Cloud, guest: str) -> None:
    response = exec_plain(cloud, guest, "sleep", "4711", timeout="1s")
    assert refusal(response) == (504, "GUEST_EXEC_TIMEOUT")
    eventually(lambda: "sleep 4711" not in shell(cloud, guest, "ps"), "the program has ended")


@pytest.mark.parametrize("program", ["/no/such/program", "no-such-program"])
def test_a_program_that_is_not_there_is_refused(cloud: Cloud, guest: str, program: str) -> None:
    assert refusal(exec_plain(cloud, guest, program)) == (422, "GUEST_PROGRAM_NOT_FOUND")


def test_output_beyond_the_limit_is_cut_and_said_to_be(cloud: Cloud, guest: str) -> None:
    answer = cloud.exec(guest, "/bin/sh", "-c", "head -c 1200000 /dev/zero | tr '\\0' x")
    assert (answer["exitCode"], answer["truncated"], answer["stdout"]) == (0, True, "x" * 2**20)


def test_an_idempotency_key_is_refused_where_nothing_is_kept(cloud: Cloud, guest: str) -> None:
    response = cloud.api.request(
        "POST",
        f"/v1/instances/{guest}/exec",
        json={"argv": ["touch", "/tmp/done"]},
        headers={"Idempotency-Key": "once"},
    )
    assert response.status_code == 400, response.text
    assert shell(cloud, guest, "ls /tmp") == ""


def test_output_is_told_over_the_socket_while_the_program_runs(cloud: Cloud, guest: str) -> None:
    script = "echo first; until [ -e /tmp/go ]; do sleep 0.1; done; echo last >&2; exit 5"
    with run_by_socket(cloud, guest, argv=["/bin/sh", "-c", script]) as socket:
        assert message(cloud, socket) == {}
        assert message(cloud, socket) == {"stdout": "first\n"}
        shell(cloud, guest, "touch /tmp/go")
        assert message(cloud, socket) == {"stderr": "last\n"}
        assert message(cloud, socket) == {"end": {"exitCode": 5, "truncated": False}}
        assert list(socket) == []
        assert socket.protocol.close_code == 1000
    assert shell(cloud, guest, "rm /tmp/go; ls -A /tmp") == ""


def test_pieces_come_in_the_order_in_which_they_were_written(cloud: Cloud, guest: str) -> None:
    with run_by_socket(cloud, guest, argv=["seq", "1", "50000"]) as socket:
        assert message(cloud, socket) == {}
        said = ""
        while "end" not in (told := message(cloud, socket)):
            said += told["stdout"]
    assert said == "".join(f"{number}\n" for number in range(1, 50_001))
    assert told["end"] == {"exitCode": 0, "truncated": False}


def test_whoever_hangs_up_ends_the_program(cloud: Cloud, guest: str) -> None:
    with run_by_socket(cloud, guest, argv=["sleep", "4712"]) as socket:
        assert message(cloud, socket) == {}
        assert "sleep 4712" in shell(cloud, guest, "ps")
    eventually(lambda: "sleep 4712" not in shell(cloud, guest, "ps"), "the program has ended")
    eventually(lambda: shell(cloud, guest, "ls -A /tmp") == "", "its output is removed")


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"argv": ["/no/such/program"]}, (422, "GUEST_PROGRAM_NOT_FOUND")),
        ({"argv": ["sleep", "4713"], "timeout": "1s"}, (504, "GUEST_EXEC_TIMEOUT")),
    ],
)
def test_what_is_refused_comes_over_the_socket_in_the_ends_place(
    cloud: Cloud, guest: str, request_: dict[str, object], expected: tuple[int, str]
) -> None:
    with run_by_socket(cloud, guest, **request_) as socket:
        assert message(cloud, socket) == {}
        problem = message(cloud, socket, "Problem")
        assert (problem["status"], problem["reason"]) == expected
    assert "sleep 4713" not in shell(cloud, guest, "ps")


# Files


def test_a_file_goes_in_and_comes_out_the_same(cloud: Cloud, guest: str) -> None:
    path = "/root/a file"
    pushed = push(cloud, guest, path, mode="640", owner="root:root", digest=DIGEST)
    assert pushed.status_code == 200, pushed.text
    expected = {"path": path, "sizeBytes": len(CONTENT), "digest": DIGEST}
    assert document(pushed) == {**expected, "mode": "0640", "owner": "root:root"}
    assert shell(cloud, guest, f"sha256sum '{path}'").split()[0] == DIGEST.removeprefix("sha256:")
    assert shell(cloud, guest, f"stat -c '%a %U:%G' '{path}'") == "640 root:root\n"
    pulled = pull(cloud, guest, path)
    assert (pulled.status_code, pulled.content == CONTENT) == (200, True)
    counted = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
    assert pulled.headers["Repr-Digest"] == f"sha-256=:{counted}:"
    assert pulled.headers["Guest-File-Mode"] == "0640"
    assert shell(cloud, guest, "ls -A /root; rm '/root/a file'") == "a file\n"


def test_bytes_with_another_digest_leave_what_was_there(cloud: Cloud, guest: str) -> None:
    assert push(cloud, guest, "/root/kept", b"before", mode="0600").status_code == 200
    response = push(cloud, guest, "/root/kept", b"after", digest=DIGEST)
    assert refusal(response) == (422, "GUEST_FILE_DIGEST_MISMATCH")
    assert shell(cloud, guest, "ls -A /root; cat /root/kept; rm /root/kept") == "kept\nbefore"


def test_a_file_that_is_replaced_keeps_its_mode(cloud: Cloud, guest: str) -> None:
    shell(cloud, guest, "echo old > /root/f; chmod 604 /root/f; chown 7:8 /root/f")
    assert push(cloud, guest, "/root/f", b"new").status_code == 200
    assert shell(cloud, guest, "stat -c '%a %u:%g' /root/f; cat /root/f; rm /root/f") == "604 7:8\nnew"


def test_a_read_only_place_is_refused_with_the_guests_words(cloud: Cloud, guest: str) -> None:
    shell(cloud, guest, "mkdir -p /ro && mount -t tmpfs -o ro none /ro")
    response = push(cloud, guest, "/ro/f")
    assert refusal(response) == (409, "GUEST_FILE_REFUSED")
    assert "Read-only file system" in document(response)["detail"]


def test_a_full_disk_is_refused_with_the_guests_words_and_nothing_is_left(cloud: Cloud, guest: str) -> None:
    shell(cloud, guest, "mkdir -p /little && mount -t tmpfs -o size=64k none /little")
    response = push(cloud, guest, "/little/f")
    assert refusal(response) == (409, "GUEST_FILE_REFUSED")
    assert "No space left on device" in document(response)["detail"]
    assert shell(cloud, guest, "ls -A /little") == ""


@pytest.mark.parametrize(
    ("path", "wish", "expected"),
    [
        ("/no/such/directory/f", {}, (404, "GUEST_FILE_NOT_FOUND")),
        ("/etc", {}, (409, "GUEST_FILE_REFUSED")),
        ("/root/f", {"owner": "nobody-known"}, (409, "GUEST_FILE_REFUSED")),
        ("/root/f", {"mode": "u+x"}, (400, "FIELD_INVALID")),
        ("/root/f", {"digest": "md5:0"}, (400, "FIELD_INVALID")),
        ("not/absolute", {}, (400, "FIELD_INVALID")),
    ],
)
def test_a_push_that_cannot_be_is_refused_and_leaves_nothing(
    cloud: Cloud, guest: str, path: str, wish: dict[str, str], expected: tuple[int, str]
) -> None:
    assert refusal(push(cloud, guest, path, b"little", **wish)) == expected
    assert shell(cloud, guest, "ls -A /root; find / -xdev -name '.qcontroller-*'") == ""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/no/such/file", (404, "GUEST_FILE_NOT_FOUND")),
        ("/etc", (409, "GUEST_FILE_REFUSED")),
        ("/dev/vda", (409, "GUEST_FILE_REFUSED")),
    ],
)
def test_what_is_no_file_cannot_be_pulled(
    cloud: Cloud, guest: str, path: str, expected: tuple[int, str]
) -> None:
    assert refusal(pull(cloud, guest, path)) == expected


# A runner that dies in the middle


def test_a_runner_that_is_killed_leaves_neither_file_nor_program_in_the_guest(
    cloud: Cloud, guest: str
) -> None:
    def silent() -> Iterator[bytes]:
        yield CONTENT
        assert killed.wait(_WITHIN_S)

    def pushed() -> int:
        wish = {"path": "/root/half", "mode": "0644"}
        return cloud.api.request(
            "PUT", f"/v1/instances/{guest}/files", params=wish, content=silent()
        ).status_code

    killed = threading.Event()
    with ThreadPoolExecutor(1) as pool, run_by_socket(cloud, guest, argv=["sleep", "4714"]) as socket:
        push_ = pool.submit(pushed)
        assert message(cloud, socket) == {}
        eventually(lambda: ".qcontroller-" in shell(cloud, guest, "ls -A /root"), "the push has begun")
        assert "sleep 4714" in shell(cloud, guest, "ps")
        try:
            cloud.stack.kill_and_wait_restarted("qemu-runner")
        finally:
            killed.set()
        assert push_.result(_WITHIN_S) >= 500
        assert message(cloud, socket, "Problem")["status"] >= 500
    cloud.wait_ready(guest)
    eventually(lambda: shell(cloud, guest, "ls -A /root /tmp") == "/root:\n\n/tmp:\n", "nothing lies there")
    eventually(lambda: "sleep 4714" not in shell(cloud, guest, "ps"), "the program has ended")
    assert "qcontroller" not in shell(cloud, guest, "ls -l /proc/$(pidof qemu-ga)/fd")


# Accounts


def test_a_password_is_set_and_stands_in_no_log(cloud: Cloud, guest: str) -> None:
    password = "a:b never to be told"
    assert in_guest(cloud, guest, "password", user="root", password=password).status_code == 204
    hashed = hashlib.sha256(password.encode()).hexdigest()
    assert shell(cloud, guest, "grep ^root: /etc/shadow").split(":")[1] == f"$sha256${hashed}"
    encoded = base64.b64encode(password.encode()).decode()
    said = list(itertools.chain.from_iterable(text.splitlines() for text in cloud.stack.logs().values()))
    assert said
    assert not [line for line in said if password in line or encoded in line]


def test_keys_are_let_in_each_once_or_instead_of_the_others(cloud: Cloud, guest: str) -> None:
    first, second = (f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{letter} {letter}" for letter in "EF")
    for keys in ([first], [first, second]):
        assert in_guest(cloud, guest, "ssh-keys", user="root", keys=keys).status_code == 204
    assert shell(cloud, guest, "cat /root/.ssh/authorized_keys").splitlines() == [first, second]
    response = in_guest(cloud, guest, "ssh-keys", user="root", keys=[second], replace=True)
    assert response.status_code == 204
    assert shell(cloud, guest, "cat /root/.ssh/authorized_keys; rm -r /root/.ssh").splitlines() == [second]


@pytest.mark.parametrize(
    ("what", "body"),
    [("password", {"password": "secret"}), ("ssh-keys", {"keys": ["ssh-ed25519 AAAA me"]})],
)
def test_an_account_that_the_guest_has_not_is_refused_in_its_words(
    cloud: Cloud, guest: str, what: str, body: dict[str, object]
) -> None:
    assert refusal(in_guest(cloud, guest, what, user="ghost", **body)) == (409, "GUEST_AGENT_REFUSED")


# Standing still


def test_a_guest_none_of_whose_filesystems_can_stand_still_says_so_and_goes_on(
    cloud: Cloud, guest: str
) -> None:
    """All that the small guest has mounted is FAT, or in memory."""
    frozen = in_guest(cloud, guest, "freeze", timeout="120s")
    assert frozen.status_code == 200, frozen.text
    assert document(frozen)["filesystems"] == 0
    until = datetime.fromisoformat(document(frozen)["thawTime"])
    assert 60 < (until - datetime.now(UTC)).total_seconds() <= 120
    assert shell(cloud, guest, "echo alive") == "alive\n"
    thawed = in_guest(cloud, guest, "thaw")
    assert thawed.status_code == 200, thawed.text
    assert document(thawed)["filesystems"] == document(frozen)["filesystems"]
    assert shell(cloud, guest, "echo alive") == "alive\n"


def test_the_clock_is_right_again_after_a_pause(cloud: Cloud, guest: str) -> None:
    shell(cloud, guest, "date -s '2020-01-01 00:00:00'")
    cloud.verb(guest, "pause")
    for response in (push(cloud, guest, "/root/f"), pull(cloud, guest, "/etc/hosts")):
        assert refusal(response) == (409, "INSTANCE_STATE_CONFLICT")
    cloud.verb(guest, "resume")
    eventually(lambda: shell(cloud, guest, "date +%Y").strip() != "2020", "the clock is set")
    late_s = datetime.now(UTC).timestamp() - int(shell(cloud, guest, "date +%s"))
    assert abs(late_s) < 30


# Without an agent, and with a false one


def test_without_an_agent_each_call_says_so(cloud: Cloud) -> None:
    name = cloud.launch_ready(nics=[])["name"]
    # Its port stays closed.
    replace_agent(cloud, name, "#!/bin/sh\nexec sleep 100000\n")
    eventually(lambda: condition(cloud, name, "AgentConnected")["status"] == "FALSE", "the agent has gone")
    path = f"/v1/instances/{name}"
    for response in (
        cloud.api.request("GET", f"{path}/guest"),
        exec_plain(cloud, name, "true"),
        push(cloud, name, "/root/f"),
        pull(cloud, name, "/etc/hosts"),
        in_guest(cloud, name, "password", user="root", password="secret"),
        in_guest(cloud, name, "ssh-keys", user="root", keys=["ssh-ed25519 AAAA me"]),
        in_guest(cloud, name, "freeze"),
        in_guest(cloud, name, "thaw"),
    ):
        assert refusal(response) == (409, "GUEST_AGENT_UNAVAILABLE")
    with run_by_socket(cloud, name, argv=["true"]) as socket:
        assert message(cloud, socket, "Problem")["reason"] == "GUEST_AGENT_UNAVAILABLE"
    cloud.delete(name)


LIARS: Final = {
    "an echo": "exec cat < $port > $port",
    "silent": "exec sleep 100000 <> $port",
    "one long line": "exec tr '\\n\\0' xx < /dev/zero > $port",
}


@pytest.mark.parametrize("lie", LIARS.values(), ids=LIARS)
def test_a_false_agent_costs_its_own_guest_an_agent_and_nobody_else_anything(
    cloud: Cloud, guest: str, lie: str
) -> None:
    runner = cloud.stack.process("qemu-runner")
    name = cloud.launch_ready(nics=[])["name"]
    replace_agent(cloud, name, f"#!/bin/sh\nport=/dev/virtio-ports/org.qemu.guest_agent.0\n{lie}\n")
    eventually(lambda: condition(cloud, name, "AgentConnected")["status"] == "FALSE", "the agent has gone")
    assert condition(cloud, name, "AgentConnected")["reason"]
    assert refusal(exec_plain(cloud, name, "true")) == (409, "GUEST_AGENT_UNAVAILABLE")
    assert condition(cloud, name, "MachineRunning")["status"] == "TRUE"
    assert shell(cloud, guest, "echo alive") == "alive\n"
    assert cloud.stack.process("qemu-runner") == runner
    cloud.delete(name)
