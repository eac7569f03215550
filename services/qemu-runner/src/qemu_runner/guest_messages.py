"""What guests tell, as the contract's messages."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from qcontroller.controller.v1 import instance_pb2

from qemu_runner.domain.guest_report import GuestFilesystem, GuestMemory, GuestReport, GuestUser
from qemu_runner.domain.observation import Address, GuestInfo, GuestInterface, GuestOs, GuestTimeZone


def time_message(moment: datetime) -> Timestamp:
    """Return a moment."""
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def address_message(address: Address) -> instance_pb2.NicAddress:
    """Return an address."""
    return instance_pb2.NicAddress(address=address.address, family=address.family, source=address.source)


def info_message(info: GuestInfo) -> instance_pb2.GuestInfo:
    """Return who a guest is."""
    return instance_pb2.GuestInfo(
        hostname=info.hostname,
        os=_os(info.os),
        time_zone=_zone(info.time_zone),
        interfaces=[_interface(one) for one in info.interfaces],
    )


def report_message(report: GuestReport) -> instance_pb2.GuestReport:
    """Return a report."""
    message = instance_pb2.GuestReport(
        time=time_message(report.time),
        agent_version=report.agent_version,
        hostname=report.info.hostname,
        os=_os(report.info.os),
        time_zone=_zone(report.info.time_zone),
        interfaces=[_interface(one) for one in report.info.interfaces],
        users=[_user(one) for one in report.users],
        filesystems=[_filesystem(one) for one in report.filesystems],
        memory=_memory(report.memory),
    )
    if report.load is not None:
        message.load.one_minute = report.load.one_minute
        message.load.five_minutes = report.load.five_minutes
        message.load.fifteen_minutes = report.load.fifteen_minutes
    return message


def _os(os: GuestOs) -> instance_pb2.GuestOs:
    return instance_pb2.GuestOs(
        id=os.id,
        name=os.name,
        pretty_name=os.pretty_name,
        version=os.version,
        kernel_release=os.kernel_release,
        machine=os.machine,
    )


def _zone(zone: GuestTimeZone | None) -> instance_pb2.GuestTimeZone | None:
    return None if zone is None else instance_pb2.GuestTimeZone(name=zone.name, offset_seconds=zone.offset_s)


def _interface(interface: GuestInterface) -> instance_pb2.GuestInterface:
    return instance_pb2.GuestInterface(
        name=interface.name,
        mac=interface.mac,
        addresses=[address_message(one) for one in interface.addresses],
    )


def _user(user: GuestUser) -> instance_pb2.GuestUser:
    since = None if user.login_time is None else time_message(user.login_time)
    return instance_pb2.GuestUser(name=user.name, domain=user.domain, login_time=since)


def _filesystem(one: GuestFilesystem) -> instance_pb2.GuestFilesystem:
    return instance_pb2.GuestFilesystem(
        mountpoint=one.mountpoint,
        device=one.device,
        type=one.type,
        total_bytes=one.total_bytes,
        used_bytes=one.used_bytes,
    )


def _memory(memory: GuestMemory | None) -> instance_pb2.GuestMemory | None:
    if memory is None:
        return None
    return instance_pb2.GuestMemory(
        source=memory.source,
        total_bytes=memory.total_bytes,
        free_bytes=memory.free_bytes,
        available_bytes=memory.available_bytes,
        cached_bytes=memory.cached_bytes,
        swap_in_bytes=memory.swap_in_bytes,
        swap_out_bytes=memory.swap_out_bytes,
        major_faults=memory.major_faults,
    )
