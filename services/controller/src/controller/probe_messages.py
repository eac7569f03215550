"""Probes between the contract's messages and the domain."""

from collections.abc import Sequence

from qcontroller.controller.v1 import instance_pb2 as pb

from controller.domain.fault import Fault
from controller.domain.probe import AGENT, DEFAULT_HTTP_PORT, DONE, Probe, ProbeKind


def probe_message(probe: Probe) -> pb.Probe:
    """Return a probe as a launch takes it."""
    match probe.kind:
        case ProbeKind.AGENT:
            return pb.Probe(agent=pb.AgentProbe())
        case ProbeKind.ADDRESS:
            return pb.Probe(address=pb.AddressProbe())
        case ProbeKind.CLOUD_INIT:
            return pb.Probe(cloud_init=DONE)
        case ProbeKind.TCP:
            return pb.Probe(tcp=pb.TcpProbe(port=probe.port))
        case ProbeKind.HTTP:
            return pb.Probe(http=pb.HttpProbe(port=probe.port, path=probe.path, status=probe.status))
        case ProbeKind.SERIAL:
            return pb.Probe(serial=pb.SerialProbe(match=probe.match))
        case ProbeKind.EXEC:
            return pb.Probe(exec=pb.ExecProbe(argv=probe.argv, exit_code=probe.exit_code))


def probes_of(messages: Sequence[pb.Probe], faults: list[Fault]) -> tuple[Probe, ...]:
    """Return the probes that a launch asks for; those that are none become faults."""
    probes = []
    for index, message in enumerate(messages):
        at = f"/readiness/all/{index}"
        probe = _probe_of(message)
        if probe is None:
            faults.append(Fault(at, f"must be one of {', '.join(ProbeKind)}"))
        if message.WhichOneof("kind") == "cloud_init" and message.cloud_init != DONE:
            faults.append(Fault(f"{at}/cloudInit", f'must be "{DONE}"'))
        # One of them stands in for what is none, so that the others keep their numbers.
        probes.append(probe or AGENT)
    return tuple(probes)


def _probe_of(message: pb.Probe) -> Probe | None:
    match message.WhichOneof("kind"):
        case "agent":
            return Probe(kind=ProbeKind.AGENT)
        case "address":
            return Probe(kind=ProbeKind.ADDRESS)
        case "cloud_init":
            return Probe(kind=ProbeKind.CLOUD_INIT)
        case "tcp":
            return Probe(kind=ProbeKind.TCP, port=message.tcp.port)
        case "http":
            http = message.http
            return Probe(
                kind=ProbeKind.HTTP,
                port=http.port or DEFAULT_HTTP_PORT,
                path=http.path or "/",
                status=http.status,
            )
        case "serial":
            return Probe(kind=ProbeKind.SERIAL, match=message.serial.match)
        case "exec":
            return Probe(kind=ProbeKind.EXEC, argv=tuple(message.exec.argv), exit_code=message.exec.exit_code)
        case None:
            return None
