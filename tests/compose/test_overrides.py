"""The documented overrides, each started once."""

import json
from pathlib import Path

import pytest
from containers import Containers, client, docker, read_status, running
from framework import guests
from framework.stack import eventually, free_ports
from qcstack.lifecycle import StackError

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


def _services(containers: Containers, trace: str) -> set[str]:
    lines = docker("logs", containers.inspect("collector")["Id"]).splitlines()
    spans = [json.loads(line) for line in lines]
    return {span["service"] for span in spans if span["trace"] == trace}
