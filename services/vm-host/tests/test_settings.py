"""Settings: what is accepted, what is refused, what goes over what."""

import json
from pathlib import Path

import pytest
from vm_host.errors import SettingsInvalidError
from vm_host.settings import Settings, load


def write(directory: Path, document: object) -> Path:
    path = directory / "vm-host.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


@pytest.mark.parametrize("key", ["socketPath", "socket_path"])
def test_both_casings_are_read(tmp_path: Path, key: str) -> None:
    assert load(write(tmp_path, {key: "/run/x.sock"}), {}) == Settings(Path("/run/x.sock"))


def test_variables_go_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, {"socketPath": "/run/x.sock", "stopGrace": "2m", "allowedPrograms": ["a"]})
    environ = {"QC_VM_HOST_STOP_GRACE": "1.5s", "QC_VM_HOST_ALLOWED_PROGRAMS": "b,/c/d", "HOME": "/"}
    settings = load(path, environ)
    assert (settings.stop_grace_s, settings.allowed_programs) == (1.5, ("b", "/c/d"))


def test_empty_values_mean_the_default(tmp_path: Path) -> None:
    path = write(
        tmp_path, {"socketPath": "/run/x.sock", "stopGrace": "", "allowedPrograms": [], "logLevel": ""}
    )
    assert load(path, {}) == Settings(Path("/run/x.sock"))


BAD: list[tuple[object, str]] = [
    ({}, "socketPath is missing"),
    ({"socketPath": "/x", "colour": 1}, "unknown key 'colour'"),
    ({"socketPath": "/x", "socket_path": "/y"}, "given twice"),
    ('{"socketPath": "/x", "socketPath": "/y"}', "a key occurs twice"),
    ({"socketPath": "x"}, "absolute path"),
    ({"socketPath": "/" + "x" * 107}, "at most 107 bytes"),
    ({"socketPath": "/x", "stopGrace": "soon"}, "duration"),
    ({"socketPath": "/x", "stopGrace": 120}, "must be a string"),
    ({"socketPath": "/x", "allowedPrograms": ["bin/qemu"]}, "base name or an absolute path"),
    ({"socketPath": "/x", "allowedPrograms": ["qemu", "/opt/qemu"]}, "base names must differ"),
    ({"socketPath": "/x", "logLevel": "LOUD"}, "must be one of"),
    ([], "not a JSON object"),
    ("{", "Expecting"),
]


@pytest.mark.parametrize(("document", "fault"), BAD, ids=[fault for _, fault in BAD])
def test_a_fault_is_named(tmp_path: Path, document: object, fault: str) -> None:
    with pytest.raises(SettingsInvalidError, match=fault):
        load(write(tmp_path, document), {})


def test_an_unknown_variable_is_refused() -> None:
    with pytest.raises(SettingsInvalidError, match="QC_VM_HOST_COLOUR"):
        load(None, {"QC_VM_HOST_SOCKET_PATH": "/x", "QC_VM_HOST_COLOUR": "red"})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalidError, match=r"nowhere\.json"):
        load(tmp_path / "nowhere.json", {})
