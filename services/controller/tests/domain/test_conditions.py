"""Conditions derived from what was observed."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from controller.domain.cloud_init import CloudInit, CloudInitStatus
from controller.domain.condition import Condition, ConditionStatus, View, derive
from controller.domain.machine import Address, Machine, MachineExit, MachinePhase, NicView, ProbeView, Trouble
from controller.domain.probe import AGENT, Probe, ProbeKind
from controller.domain.readiness import Readiness

NOW = datetime(2030, 1, 1, tzinfo=UTC)
RUNNING = Machine(
    id="m",
    phase=MachinePhase.ACTIVE,
    run_state="running",
    nics=(NicView("user", "52:54:00:00:00:01", (Address("10.0.0.1", "ipv4", "user"),)),),
    start_time=NOW,
)


def view(machine: Machine | None = RUNNING, *, reachable: bool = True, speed: float = 1.0) -> View:
    return View(machine, has_nics=True, readiness=Readiness(), reachable=reachable, speed_factor=speed)


def asked(readiness: Readiness, machine: Machine) -> View:
    return View(machine, has_nics=True, readiness=readiness, reachable=True, speed_factor=1.0)


def statuses(found: tuple[Condition, ...]) -> dict[str, tuple[str, str]]:
    return {condition.type: (condition.status.value, condition.reason) for condition in found}


def test_a_running_machine_without_an_agent_is_not_ready() -> None:
    found = statuses(derive(view(), (), NOW))
    assert found["MachineRunning"] == ("TRUE", "QemuRunning")
    assert found["AddressAssigned"][0] == "TRUE"
    assert found["Ready"] == ("FALSE", "ProbesMissing")
    assert found["CloudInitDone"] == ("UNKNOWN", "NotSeen")


def test_a_paused_machine_is_not_ready_though_its_agent_is_connected() -> None:
    answering = replace(RUNNING, agent_connected=True)
    assert statuses(derive(view(answering), (), NOW))["Ready"] == ("TRUE", "ProbesHold")
    paused = replace(answering, run_state="paused")
    assert statuses(derive(view(paused), (), NOW))["Ready"] == ("FALSE", "QemuNotRunning")


def test_a_runner_that_is_away_makes_everything_unknown() -> None:
    found = statuses(derive(view(reachable=False), (), NOW))
    assert found["MachineRunning"] == ("UNKNOWN", "RUNNER_UNREACHABLE")
    assert found["Ready"][0] == "UNKNOWN"


def test_the_deadline_of_readiness_is_divided_by_the_hosts_speed() -> None:
    late = NOW + timedelta(seconds=200)
    assert statuses(derive(view(speed=1.0), (), late))["Ready"][1] == "READINESS_TIMEOUT"
    assert statuses(derive(view(speed=0.5), (), late))["Ready"][1] == "ProbesMissing"


def test_the_time_of_transition_moves_only_with_the_status() -> None:
    first = derive(view(), (), NOW)
    later = NOW + timedelta(seconds=200)
    second = derive(view(), first, later)
    ready = next(condition for condition in second if condition.type == "Ready")
    assert ready.status is ConditionStatus.FALSE
    assert ready.reason == "READINESS_TIMEOUT"
    assert ready.last_transition_time == NOW


def test_ready_names_each_probe_that_is_missing_and_what_was_seen_of_it() -> None:
    readiness = Readiness((AGENT, Probe(kind=ProbeKind.TCP, port=22), Probe(kind=ProbeKind.CLOUD_INIT)))
    probes = (ProbeView(True), ProbeView(False, "connection refused"), ProbeView(True))
    seen = replace(RUNNING, agent_connected=True, probes=probes)
    (ready,) = (one for one in derive(asked(readiness, seen), (), NOW) if one.type == "Ready")
    assert ready.message == "Still missing: tcp 22 (connection refused)."
    held = replace(seen, probes=(ProbeView(True), ProbeView(True), ProbeView(True)))
    assert statuses(derive(asked(readiness, held), (), NOW))["Ready"] == ("TRUE", "ProbesHold")


def test_probes_of_another_contract_hold_nothing() -> None:
    readiness = Readiness((Probe(kind=ProbeKind.TCP, port=22),))
    seen = replace(RUNNING, probes=(ProbeView(True), ProbeView(True)))
    assert statuses(derive(asked(readiness, seen), (), NOW))["Ready"] == ("FALSE", "ProbesMissing")


def message_of(machine: Machine) -> str:
    found = {condition.type: condition.message for condition in derive(view(machine), (), NOW)}
    return found["CloudInitDone"]


def test_cloud_init_is_done_or_has_failed_once_that_was_seen() -> None:
    done = replace(RUNNING, cloud_init=CloudInit.DONE)
    assert statuses(derive(view(done), (), NOW))["CloudInitDone"] == ("TRUE", "CloudInitFinished")
    failed = replace(RUNNING, cloud_init=CloudInit.ERROR, cloud_init_detail="a module failed")
    named = replace(failed, cloud_init_status=CloudInitStatus("error", failed_modules=("runcmd", "ntp")))
    assert message_of(named) == "Failed modules: runcmd, ntp. a module failed"
    doubted = replace(done, cloud_init_status=CloudInitStatus("done", schema_errors=("ntp: is wrong",)))
    assert message_of(doubted) == "Not as the schema wants it: ntp: is wrong."
    warned = replace(done, cloud_init_status=CloudInitStatus("done", warnings=("one", "two")))
    assert message_of(warned) == "Finished with 2 warnings."
    assert statuses(derive(view(failed), (), NOW))["CloudInitDone"] == ("FALSE", "CLOUD_INIT_FAILED")


OOPS = Trouble("KERNEL_OOPS", "[   20.1] BUG: kernel NULL pointer dereference, address: 0000000000000008", 1)
OOM = Trouble("OUT_OF_MEMORY", "[   33.5] Out of memory: Killed process 412 (lua)", 3)


def healthy(machine: Machine | None) -> tuple[str, str, str]:
    (found,) = (one for one in derive(view(machine), (), NOW) if one.type == "GuestHealthy")
    return found.status.value, found.reason, found.message


def test_a_guest_is_healthy_until_its_console_tells_of_trouble() -> None:
    assert healthy(RUNNING)[:2] == ("TRUE", "NoTroubleSeen")
    status, reason, message = healthy(replace(RUNNING, troubles=(OOPS, OOM)))
    assert (status, reason) == ("FALSE", "KERNEL_OOPS")
    assert message == f"KERNEL_OOPS: {OOPS.line}; OUT_OF_MEMORY (3 times): {OOM.line}"


def test_a_panic_is_trouble_whoever_tells_of_it() -> None:
    assert healthy(replace(RUNNING, panicked=True)) == (
        "FALSE",
        "KERNEL_PANIC",
        "The guest's kernel panicked.",
    )
    ended = replace(RUNNING, phase=MachinePhase.EXITED, run_state="", exit=MachineExit("KERNEL_PANIC"))
    assert healthy(ended)[:2] == ("FALSE", "KERNEL_PANIC")


def test_a_machine_that_ended_keeps_the_trouble_of_its_last_boot_and_without_it_nobody_knows() -> None:
    ended = replace(RUNNING, phase=MachinePhase.EXITED, run_state="", exit=MachineExit("STOPPED"))
    assert healthy(ended)[:2] == ("UNKNOWN", "MachineNotRunning")
    assert healthy(replace(ended, troubles=(OOM,)))[:2] == ("FALSE", "OUT_OF_MEMORY")
    assert healthy(None)[:2] == ("UNKNOWN", "NotStarted")


def test_ready_tells_of_trouble_only_while_something_is_missing() -> None:
    shell = Trouble("EMERGENCY_SHELL", "You are in emergency mode.", 1)
    stuck = replace(RUNNING, troubles=(shell,))
    (ready,) = (one for one in derive(view(stuck), (), NOW) if one.type == "Ready")
    assert ready.message.endswith("The console tells of EMERGENCY_SHELL: You are in emergency mode.")
    answering = replace(stuck, agent_connected=True)
    assert statuses(derive(view(answering), (), NOW))["Ready"] == ("TRUE", "ProbesHold")


def test_a_lost_network_is_told_while_the_machine_runs() -> None:
    broken = Machine(id="m", phase=MachinePhase.ACTIVE, run_state="running", network_fault="PASST_EXITED")
    assert statuses(derive(view(broken), (), NOW))["AddressAssigned"] == ("FALSE", "PASST_EXITED")
