"""The straight path: an image in, a VM out, nothing left."""

from framework.cloud import Cloud, document
from framework.stack import eventually
from qcstack import host_snapshot


def test_a_launched_instance_answers_runs_a_command_stops_and_leaves_nothing(cloud: Cloud) -> None:
    before = host_snapshot.take()

    instance = cloud.launch(name="path-1", labels={"suite": "main"})
    assert instance["status"]["state"] == "RUNNING"
    pids = cloud.stack.qemu_processes(instance["id"])
    assert len(pids) == 1, "exactly one QEMU runs the instance"

    ready = cloud.wait_ready("path-1")
    conditions = {c["type"]: c["status"] for c in ready["status"]["conditions"]}
    assert conditions["MachineRunning"] == "TRUE"
    assert conditions["AgentConnected"] == "TRUE"
    assert conditions["Ready"] == "TRUE"
    assert conditions["CloudInitDone"] in {"UNKNOWN", "TRUE"}, "the agent answers before cloud-init is done"

    answer = cloud.exec("path-1", "/bin/sh", "-c", "echo out; echo err >&2; exit 3")
    assert answer == {"exitCode": 3, "stdout": "out\n", "stderr": "err\n", "truncated": False}

    stopped = cloud.verb("path-1", "stop")
    assert stopped["status"]["state"] == "STOPPED"
    assert stopped["desiredPower"] == "STOPPED"
    assert cloud.stack.qemu_processes(instance["id"]) == []

    cloud.delete("path-1", force=False)
    assert cloud.api.request("GET", "/v1/instances/path-1").status_code == 404
    assert not cloud.stack.machine_dir(instance["id"]).exists()
    assert cloud.leaks() == []
    left = host_snapshot.take().left_since(before)
    assert host_snapshot.without_the_stacks_own(left, cloud.stack.layout) == {}


def test_the_body_of_the_readme_works_without_start(cloud: Cloud) -> None:
    body = {
        "name": "path-2",
        "image": "tiny",
        "vm": {"cpus": 2, "memory": "512M", "disk": "1G"},
        "cloudInit": {"userdata": "#cloud-config\nhostname: from-user-data\n", "networkConfig": ""},
    }
    response = cloud.api.request("POST", "/v1/instances", json=body, headers={"Prefer": "wait=60"})
    assert response.status_code == 201, response.text
    assert response.headers["Location"] == "/v1/instances/path-2"
    instance = document(response)
    assert instance["status"]["state"] == "STOPPED"
    assert instance["vm"] == {"cpus": 2, "memory": 512, "disk": 1024}
    assert cloud.stack.qemu_processes(instance["id"]) == []

    assert cloud.verb("path-2", "start")["status"]["state"] == "RUNNING"
    cloud.wait_ready("path-2")
    sectors = cloud.exec("path-2", "/bin/cat", "/sys/block/vda/size")["stdout"]
    assert int(sectors) * 512 == 1024 * 2**20, "the disk has grown to what was asked for"
    # The agent answers before cloud-init is done.
    eventually(
        lambda: cloud.exec("path-2", "/bin/hostname")["stdout"].strip() == "from-user-data",
        "the guest has taken its name from the user-data",
    )
    cloud.delete("path-2")


def test_the_guest_runs_as_its_own_uid_without_any_capability(cloud: Cloud) -> None:
    with cloud.instance() as one, cloud.instance() as two:
        uids = set()
        for instance in (one, two):
            (pid,) = cloud.stack.qemu_processes(instance["id"])
            status = _status(pid)
            uids.add(status["Uid"])
            for capabilities in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"):
                assert int(status[capabilities], 16) == 0, (capabilities, status[capabilities])
            assert status["NoNewPrivs"] == "1"
            assert status["Seccomp"] == "2"
        assert len(uids) == 2, "each machine has a uid of its own"
        assert not any(uid.split()[0] == "0" for uid in uids)


def test_a_guest_that_powers_itself_off_is_stopped_and_stays_so(cloud: Cloud) -> None:
    instance = cloud.launch_ready()
    cloud.exec(instance["name"], "/bin/sh", "-c", "(sleep 0.2; poweroff) >/dev/null 2>&1 &")
    stopped = eventually(
        lambda: found if (found := cloud.get(instance["name"]))["status"]["state"] == "STOPPED" else None,
        "the instance is STOPPED",
    )
    assert stopped["desiredPower"] == "STOPPED"
    cloud.delete(instance["name"])


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:  # noqa: PTH123
        return {name: value.strip() for name, value in (line.split(":", 1) for line in file)}
