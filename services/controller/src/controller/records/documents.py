"""Instances and nodes as REST shows them: the `resource` of events.

It follows the rule of the contract (lowerCamelCase, enums without prefix, times as RFC 3339) and must never
show a secret.
"""

from datetime import UTC, datetime
from typing import Any

from controller.domain.cloud_init import CloudInitStage, CloudInitStatus
from controller.domain.condition import Condition
from controller.domain.instance import Failure, Instance
from controller.domain.lifecycle import InstanceState
from controller.domain.machine import Address, BootPhase, Guest, NicView
from controller.domain.node import Node, VmHost
from controller.records.readiness_documents import duration_text, readiness_document

Document = dict[str, Any]


def instance_document(instance: Instance) -> Document:
    """Return `instance` as GET shows it."""
    return {
        "name": instance.name,
        "id": instance.id,
        "image": instance.image.name,
        "imageDigest": instance.image.digest,
        "vm": {
            "cpus": instance.resources.cpus,
            "memory": instance.resources.memory_mib,
            "disk": instance.resources.disk_mib,
        },
        "labels": dict(instance.labels),
        "desiredPower": instance.desired_power.value,
        "generation": instance.generation,
        "createTime": time_text(instance.create_time),
        "status": _status(instance),
        "arch": instance.arch,
        "readiness": readiness_document(instance.readiness),
        "sshKeys": list(instance.first_boot.ssh_keys),
        "hostname": instance.first_boot.hostname,
        "packages": list(instance.first_boot.packages),
        **_policies(instance),
    }


def node_document(node: Node) -> Document:
    """Return `node` as GET shows it."""
    return {
        "name": node.name,
        "state": node.state.value,
        "arch": node.arch,
        "qemuVersion": node.qemu_version,
        "accelerators": [
            {"name": item.name, "usable": item.usable, "reason": item.reason} for item in node.accelerators
        ],
        "accelerator": node.accelerator,
        "speedFactor": node.speed_factor,
        "cpus": {"total": node.cpus_total, "allocated": node.cpus_allocated, "limit": node.cpus_limit},
        "memory": {
            "total": node.memory_total_mib,
            "allocated": node.memory_allocated_mib,
            "limit": node.memory_limit_mib,
        },
        "disk": {
            "total": node.disk_total_mib,
            "free": node.disk_free_mib,
            "allocated": node.disk_allocated_mib,
            "limit": node.disk_limit_mib,
        },
        "message": node.message,
        "vmHosts": [_vm_host(item) for item in node.vm_hosts],
    }


def time_text(moment: datetime) -> str:
    """Return a time as RFC 3339 in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _status(instance: Instance) -> Document:
    machine = instance.machine
    status: Document = {
        "state": instance.state.value,
        "reason": instance.reason,
        "message": instance.message,
        "observedGeneration": instance.observed_generation,
        "node": instance.node,
        "accelerator": machine.accelerator if machine is not None else "",
        "nics": [_nic(nic) for nic in instance.nic_views],
        "conditions": [_condition(condition) for condition in instance.conditions],
        "operation": instance.operation,
        "bootPhases": [_phase(phase) for phase in machine.boot_phases] if machine is not None else [],
        "boots": machine.boots if machine is not None else 0,
    }
    status["restartCount"] = instance.restarts.count
    if instance.restarts.next_time is not None:
        status["nextRestartTime"] = time_text(instance.restarts.next_time)
    if instance.lease is not None:
        status["leaseExpireTime"] = time_text(instance.lease.expire_time)
        if instance.lease.lost_time is not None:
            status["leaseLostTime"] = time_text(instance.lease.lost_time)
    if machine is not None and machine.guest is not None:
        status["guest"] = _guest(machine.guest)
    if machine is not None and machine.cloud_init_status is not None:
        status["cloudInit"] = _cloud_init(machine.cloud_init_status)
    if machine is not None and machine.boot_time is not None:
        status["bootTime"] = time_text(machine.boot_time)
    if instance.state is InstanceState.FAILED and instance.failure is not None:
        status |= _failure(instance.failure)
    return status


def _vm_host(vm_host: VmHost) -> Document:
    document: Document = {
        "name": vm_host.name,
        "generation": vm_host.generation,
        "qemuVersion": vm_host.qemu_version,
        "state": vm_host.state.value,
        "machines": vm_host.machines,
        "message": vm_host.message,
    }
    if vm_host.since is not None:
        document["since"] = time_text(vm_host.since)
    return document


def _policies(instance: Instance) -> Document:
    policies = instance.policies
    document: Document = {
        "restartPolicy": policies.restart.value,
        "autostart": policies.autostart,
        "onExpire": policies.on_expire.value,
        "protected": policies.protected,
    }
    if policies.expire_time is not None:
        document["expireTime"] = time_text(policies.expire_time)
    if instance.lease is not None:
        document["lease"] = duration_text(instance.lease.duration_s)
    return document


def _failure(failure: Failure) -> Document:
    document: Document = {"failureTime": time_text(failure.time)}
    if failure.code is not None:
        document["exitCode"] = failure.code
    told = {
        "exitSignal": failure.signal,
        "stderrTail": failure.stderr_tail,
        "consoleTail": failure.console_tail,
    }
    return document | {key: value for key, value in told.items() if value}


def _nic(nic: NicView) -> Document:
    return {
        "network": nic.network,
        "mac": nic.mac,
        "addresses": [_address(item) for item in nic.addresses],
        "ports": [
            {"host": port.host, "guest": port.guest, "protocol": port.protocol, "address": port.address}
            for port in nic.ports
        ],
    }


def _condition(condition: Condition) -> Document:
    return {
        "type": condition.type,
        "status": condition.status.value,
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": time_text(condition.last_transition_time),
    }


def _guest(guest: Guest) -> Document:
    document: Document = {"hostname": guest.hostname}
    if guest.os is not None:
        document["os"] = {
            "id": guest.os.id,
            "name": guest.os.name,
            "prettyName": guest.os.pretty_name,
            "version": guest.os.version,
            "kernelRelease": guest.os.kernel_release,
            "machine": guest.os.machine,
        }
    if guest.time_zone is not None:
        document["timeZone"] = {"name": guest.time_zone.name, "offsetSeconds": guest.time_zone.offset_s}
    document["interfaces"] = [
        {"name": one.name, "mac": one.mac, "addresses": [_address(item) for item in one.addresses]}
        for one in guest.interfaces
    ]
    return document


def _cloud_init(found: CloudInitStatus) -> Document:
    return {
        "state": found.state,
        "datasource": found.datasource,
        "stages": [_cloud_init_stage(stage) for stage in found.stages],
        "errors": list(found.errors),
        "failedModules": list(found.failed_modules),
        "warnings": list(found.warnings),
        "schemaErrors": list(found.schema_errors),
    }


def _cloud_init_stage(stage: CloudInitStage) -> Document:
    document: Document = {"name": stage.name, "errors": list(stage.errors), "warnings": list(stage.warnings)}
    if stage.start_time is not None:
        document["startTime"] = time_text(stage.start_time)
    if stage.finish_time is not None:
        document["finishTime"] = time_text(stage.finish_time)
    return document


def _address(address: Address) -> Document:
    return {"address": address.address, "family": address.family, "source": address.source}


def _phase(phase: BootPhase) -> Document:
    document: Document = {"name": phase.name, "durationMs": phase.duration_ms}
    if phase.start_time is not None:
        document["startTime"] = time_text(phase.start_time)
    return document
