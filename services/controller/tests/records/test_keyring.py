"""Sealing and opening, and what a file of keys may be."""

import base64
from pathlib import Path

import pytest
from controller.errors import SecretUnreadable
from controller.records.keyring import KEY_BYTES, PLAIN, Keyring, key_id, read_keyring
from servicekit.settings import SettingsError

ONE, TWO = bytes(range(KEY_BYTES)), bytes(KEY_BYTES)
PLACE = "instance 7d0c user_data"


def key_file(path: Path, *keys: bytes, mode: int = 0o400) -> Path:
    """Write a file of keys, as an operator would."""
    file = path / "keys"
    file.unlink(missing_ok=True)
    file.write_bytes(b"# keys\n\n" + b"".join(base64.b64encode(key) + b"\n" for key in keys))
    file.chmod(mode)
    return file


def test_what_was_sealed_opens_and_shows_nothing_of_itself() -> None:
    keys = Keyring([ONE])
    sealed = keys.seal(b"#cloud-config", PLACE)
    assert b"cloud" not in sealed
    assert keys.open(sealed, PLACE, keys.sealing_id) == b"#cloud-config"


def test_the_same_value_is_sealed_otherwise_each_time() -> None:
    keys = Keyring([ONE])
    assert keys.seal(b"same", PLACE) != keys.seal(b"same", PLACE)


def test_the_first_key_seals_and_each_one_opens() -> None:
    old, both = Keyring([ONE]), Keyring([TWO, ONE])
    assert both.sealing_id == key_id(TWO)
    assert both.open(old.seal(b"x", PLACE), PLACE, old.sealing_id) == b"x"


def test_a_value_does_not_open_in_another_place() -> None:
    keys = Keyring([ONE])
    with pytest.raises(SecretUnreadable, match="changed, or are another row's"):
        keys.open(keys.seal(b"x", PLACE), "instance 7d0d user_data", keys.sealing_id)


@pytest.mark.parametrize(
    "damage", [lambda v: v[:-1], lambda v: b"", lambda v: v[:5], lambda v: b"\0" + v[1:]]
)
def test_a_value_that_was_changed_does_not_open(damage: "object") -> None:
    keys = Keyring([ONE])
    assert callable(damage)
    with pytest.raises(SecretUnreadable):
        keys.open(damage(keys.seal(b"x", PLACE)), PLACE, keys.sealing_id)


def test_a_missing_key_is_told_by_its_id() -> None:
    with pytest.raises(SecretUnreadable, match=key_id(ONE)):
        Keyring([TWO]).open(Keyring([ONE]).seal(b"x", PLACE), PLACE, key_id(ONE))


def test_without_keys_a_value_stays_as_it_is() -> None:
    assert Keyring().sealing_id == PLAIN
    assert Keyring().seal(b"x", PLACE) == b"x"
    assert Keyring([ONE]).open(b"x", PLACE, PLAIN) == b"x"


def test_a_file_holds_a_key_a_line_and_comments(tmp_path: Path) -> None:
    keys = read_keyring(key_file(tmp_path, TWO, ONE))
    assert keys.sealing_id == key_id(TWO)
    assert keys.knows(key_id(ONE))


@pytest.mark.parametrize("mode", [0o404, 0o420, 0o402, 0o644, 0o666])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(SettingsError, match="lets others use it"):
        read_keyring(key_file(tmp_path, ONE, mode=mode))


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o640])
def test_a_file_of_its_owner_and_group_is_taken(tmp_path: Path, mode: int) -> None:
    assert read_keyring(key_file(tmp_path, ONE, mode=mode)).sealing_id == key_id(ONE)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no key in it"),
        (b"# none\n", "no key in it"),
        (b"hunter2\n", "line 1: must be the base64 of 32 bytes"),
        (base64.b64encode(ONE[:-1]), "line 1: must be the base64"),
        (b"\xff\xfe\n", "line 1: must be the base64"),
        (b"\n".join([base64.b64encode(ONE)] * 2), "each once"),
        (b"\n".join(base64.b64encode(bytes([n]) * KEY_BYTES) for n in range(17)), "at most 16 keys"),
        (b"#" * 20000, "larger than"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content)
    file.chmod(0o400)
    with pytest.raises(SettingsError, match=told) as refused:
        read_keyring(file)
    assert "hunter2" not in str(refused.value)


def test_a_file_that_is_not_there_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        read_keyring(tmp_path / "absent")
    with pytest.raises(SettingsError, match="Is a directory"):
        read_keyring(tmp_path)
    with pytest.raises(SettingsError, match="not a regular file"):
        read_keyring(Path("/dev/null"))
