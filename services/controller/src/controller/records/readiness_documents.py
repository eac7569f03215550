"""The contract of readiness as a launch takes it, as GET shows it and as machine.json keeps it."""

from collections.abc import Mapping
from typing import Any

from servicekit.quantities import parse_duration_s

from controller.domain.probe import DEFAULT_HTTP_PORT, DONE, Probe, ProbeKind
from controller.domain.readiness import Readiness

Document = dict[str, Any]


def duration_text(seconds: float) -> str:
    """Return a duration as the contract writes it."""
    return f"{int(seconds)}s" if float(seconds).is_integer() else f"{int(seconds * 1000)}ms"


def readiness_document(readiness: Readiness) -> Document:
    """Return the contract of readiness as a launch takes it."""
    return {
        "all": [{probe.kind.value: _asked(probe)} for probe in readiness.probes],
        "deadline": duration_text(readiness.deadline_s),
    }


def readiness_from(document: Mapping[str, Any]) -> Readiness:
    """Return the contract that `readiness_document` wrote; probes that are not known here are left out.

    Raises:
        ValueError: It makes no sense.
        QuantityError: Nor does its deadline.
    """
    default = Readiness()
    known = set(ProbeKind)
    probes = tuple(
        _probe(ProbeKind(key), asked)
        for entry in document.get("all", ())
        for key, asked in entry.items()
        if key in known
    )
    deadline_s = parse_duration_s(document["deadline"]) if "deadline" in document else default.deadline_s
    return Readiness(probes if "all" in document else default.probes, deadline_s)


def stored_readiness(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a stored contract in today's form: once a probe was its kind's name alone."""
    probes = [{"kind": one} if isinstance(one, str) else one for one in stored.get("probes", ())]
    return {**stored, "probes": probes}


def _asked(probe: Probe) -> Any:
    match probe.kind:
        case ProbeKind.AGENT | ProbeKind.ADDRESS:
            return {}
        case ProbeKind.CLOUD_INIT:
            return DONE
        case ProbeKind.TCP:
            return {"port": probe.port}
        case ProbeKind.HTTP:
            return {"port": probe.port, "path": probe.path, "status": probe.status}
        case ProbeKind.SERIAL:
            return {"match": probe.match}
        case ProbeKind.EXEC:
            return {"argv": list(probe.argv), "exitCode": probe.exit_code}


def _probe(kind: ProbeKind, asked: Any) -> Probe:
    match kind:
        case ProbeKind.AGENT | ProbeKind.ADDRESS | ProbeKind.CLOUD_INIT:
            return Probe(kind=kind)
        case ProbeKind.TCP:
            return Probe(kind=kind, port=int(asked["port"]))
        case ProbeKind.HTTP:
            return Probe(
                kind=kind,
                port=int(asked.get("port", DEFAULT_HTTP_PORT)),
                path=str(asked.get("path", "/")),
                status=int(asked.get("status", 0)),
            )
        case ProbeKind.SERIAL:
            return Probe(kind=kind, match=str(asked["match"]))
        case ProbeKind.EXEC:
            argv = tuple(str(word) for word in asked["argv"])
            return Probe(kind=kind, argv=argv, exit_code=int(asked.get("exitCode", 0)))
