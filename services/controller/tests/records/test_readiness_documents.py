"""The contract of readiness written and read again, today's form and yesterday's."""

from controller.domain.probe import AGENT, Probe, ProbeKind
from controller.domain.readiness import Readiness
from controller.records.readiness_documents import readiness_document, readiness_from, stored_readiness
from controller.records.stored_json import from_stored, to_stored

WHOLE = Readiness(
    (
        AGENT,
        Probe(kind=ProbeKind.ADDRESS),
        Probe(kind=ProbeKind.CLOUD_INIT),
        Probe(kind=ProbeKind.TCP, port=22),
        Probe(kind=ProbeKind.HTTP, port=80, path="/healthz", status=204),
        Probe(kind=ProbeKind.SERIAL, match="login:"),
        Probe(kind=ProbeKind.EXEC, argv=("/bin/true", "x"), exit_code=3),
    ),
    90.0,
)


def test_what_is_shown_is_what_a_launch_takes() -> None:
    assert readiness_from(readiness_document(WHOLE)) == WHOLE
    assert readiness_document(WHOLE)["all"][3:5] == [
        {"tcp": {"port": 22}},
        {"http": {"port": 80, "path": "/healthz", "status": 204}},
    ]


def test_a_row_holds_it_whole() -> None:
    assert from_stored(Readiness, stored_readiness(to_stored(WHOLE))) == WHOLE


def test_a_row_of_before_there_were_other_probes_is_read() -> None:
    old = {"probes": ["agent"], "deadline_s": 180.0}
    assert from_stored(Readiness, stored_readiness(old)) == Readiness()


def test_a_record_of_a_later_release_keeps_what_is_known_here() -> None:
    record = {"all": [{"agent": {}}, {"telepathy": {"range": 3}}], "deadline": "90s"}
    assert readiness_from(record) == Readiness((AGENT,), 90.0)
