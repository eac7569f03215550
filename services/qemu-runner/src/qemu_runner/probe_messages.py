"""Probes between the contract's messages and the domain; their bounds were checked by the controller."""

from qcontroller.controller.v1 import instance_pb2 as pb

from qemu_runner.domain.probe import Probe, ProbeKind
from qemu_runner.errors import SpecFault, SpecInvalidError

_DEFAULT_HTTP_PORT = 80


def probe_of(message: pb.Probe) -> Probe:
    """Return the probe.

    Raises:
        SpecInvalidError: It is of no kind that this release knows.
    """
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
            port, path = http.port or _DEFAULT_HTTP_PORT, http.path or "/"
            return Probe(kind=ProbeKind.HTTP, port=port, path=path, status=http.status)
        case "serial":
            return Probe(kind=ProbeKind.SERIAL, match=message.serial.match)
        case "exec":
            argv = tuple(message.exec.argv)
            return Probe(kind=ProbeKind.EXEC, argv=argv, exit_code=message.exec.exit_code)
        case None:
            raise SpecInvalidError((SpecFault("/readiness/all", "asks for a probe that this node lacks."),))


def probe_message(probe: Probe) -> pb.Probe:
    """Return the message."""
    match probe.kind:
        case ProbeKind.AGENT:
            return pb.Probe(agent=pb.AgentProbe())
        case ProbeKind.ADDRESS:
            return pb.Probe(address=pb.AddressProbe())
        case ProbeKind.CLOUD_INIT:
            return pb.Probe(cloud_init="done")
        case ProbeKind.TCP:
            return pb.Probe(tcp=pb.TcpProbe(port=probe.port))
        case ProbeKind.HTTP:
            return pb.Probe(http=pb.HttpProbe(port=probe.port, path=probe.path, status=probe.status))
        case ProbeKind.SERIAL:
            return pb.Probe(serial=pb.SerialProbe(match=probe.match))
        case ProbeKind.EXEC:
            return pb.Probe(exec=pb.ExecProbe(argv=probe.argv, exit_code=probe.exit_code))
