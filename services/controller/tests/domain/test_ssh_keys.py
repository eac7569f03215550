"""Which texts are public keys, and what is told of those that are not."""

import base64
import struct

import pytest
from controller.domain.ssh_key import (
    MAX_KEY_CHARACTERS,
    MAX_KEYS,
    NO_LINE,
    OPTIONS,
    PRIVATE,
    key_fault,
    key_faults,
    normal_key,
)

# Made by OpenSSH 9.2; their private halves are kept nowhere.
ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICnvNSUtMI4qBdkDs++uRNCRBb8ELEmU1gwqD/zv5S+J"
ECDSA = (
    "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBFdZ6FuCwM/1w7mRLwQN"
    "ja8jqmrsD3BrC3PY4DcHV7tif581LT3+Ygv0rl4aI9iGP6ux9o09ilNLG1BGqHQNX7E="
)


def blob(*fields: bytes) -> str:
    """Return the base64 of SSH strings."""
    return base64.b64encode(b"".join(struct.pack(">I", len(field)) + field for field in fields)).decode()


def key(kind: str, *fields: bytes) -> str:
    """Return a key of that type."""
    return f"{kind} {blob(kind.encode(), *fields)}"


P256 = (b"nistp256", b"\x04" + bytes(64))
GOOD = {
    "ed25519": ED25519,
    "with a comment": f"{ED25519} me@host, the \N{GRINNING FACE} one # 'x' \"y\"",
    "ecdsa": ECDSA,
    "nistp521": key("ecdsa-sha2-nistp521", b"nistp521", b"\x04" + bytes(132)),
    "rsa": key("ssh-rsa", b"\x01\x00\x01", b"\x00\x80" + bytes(255)),
    "on a token": key("sk-ssh-ed25519@openssh.com", bytes(32), b"ssh:"),
    "ecdsa on a token": key("sk-ecdsa-sha2-nistp256@openssh.com", *P256, b"ssh:"),
}
PEM = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n"


@pytest.mark.parametrize("kind", GOOD)
def test_a_public_key_is_taken(kind: str) -> None:
    assert key_fault(normal_key(GOOD[kind])) is None


def test_a_file_of_one_line_is_a_key() -> None:
    assert normal_key(f"  {ED25519}   me  you\r\n") == f"{ED25519} me  you"


@pytest.mark.parametrize(
    "text",
    [
        PEM,
        PEM.replace("OPENSSH", "RSA"),
        "-----BEGIN ENCRYPTED PRIVATE KEY-----",
        "PuTTY-User-Key-File-3: ssh-ed25519\n",
        "b3BlbnNzaC1rZXktdjEAAAAA",
    ],
)
def test_a_private_key_is_called_one_and_not_repeated(text: str) -> None:
    assert key_fault(normal_key(text)) == PRIVATE
    assert "b3Blb" not in PRIVATE


@pytest.mark.parametrize(
    "text", [f'command="/bin/sh" {ED25519}', f"no-pty {ED25519}", f"restrict,pty {ED25519} x"]
)
def test_options_are_refused(text: str) -> None:
    assert key_fault(normal_key(text)) == OPTIONS


@pytest.mark.parametrize(
    "text", ["", "x", "ssh-ed25519", f"{ED25519}\n{ECDSA}", f"{ED25519} a\nb", f"{ED25519} \x1b[2J"]
)
def test_what_is_not_one_line_of_a_key_is_refused(text: str) -> None:
    assert key_fault(normal_key(text)) == NO_LINE


@pytest.mark.parametrize(
    "text",
    [
        "ssh-ed25519 AAAA",
        "ssh-ed25519 not/base64!",
        ED25519[:-4],
        f"ssh-rsa {ED25519.split()[1]}",
        key("ssh-ed25519", bytes(31)),
        key("ssh-ed25519", bytes(32), b""),
        key("ssh-rsa", b"\x03", bytes(64)),
        key("ssh-rsa", b"", b"\x80" + bytes(127)),
        key("ecdsa-sha2-nistp256", b"nistp384", b"\x04" + bytes(64)),
        key("ecdsa-sha2-nistp256", b"nistp256", b"\x02" + bytes(64)),
        key("sk-ssh-ed25519@openssh.com", bytes(32)),
        f"ssh-ed25519 {base64.b64encode(struct.pack('>I', 2**32 - 1) + b'ssh-ed25519').decode()}",
        key("ssh-dss", b"\x01", b"\x01", b"\x01", b"\x01"),
        key("ssh-ed25519-cert-v01@openssh.com", bytes(32)),
        f"{ED25519} {'x' * MAX_KEY_CHARACTERS}",
    ],
)
def test_what_does_not_hold_a_key_of_its_type_is_refused(text: str) -> None:
    assert key_fault(normal_key(text)) is not None


def test_every_fault_has_its_place() -> None:
    faults = key_faults([ED25519, "x", f"{ED25519} again", PEM])
    assert [fault.pointer for fault in faults] == ["/sshKeys/1", "/sshKeys/2", "/sshKeys/3"]


def test_keys_are_bounded_in_number_and_in_all() -> None:
    many = [f"{ED25519} {number}" for number in range(MAX_KEYS + 1)]
    assert "/sshKeys" in {fault.pointer for fault in key_faults(many)}
    large = [f"{ED25519} {'x' * 3000}"] * 12
    assert "/sshKeys" in {fault.pointer for fault in key_faults(large)}
