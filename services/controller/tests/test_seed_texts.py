"""What is refused of a network-config, and what is remarked on a user-data."""

import gzip

import pytest
from controller.domain.first_boot import FirstBoot
from controller.servicers.seed_texts import (
    MAX_NETWORK_CONFIG_BYTES,
    MAX_USER_DATA_BYTES,
    network_faults,
    user_data_faults,
    user_data_remarks,
)

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
MERGED = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)
)


def told(text: str) -> list[str]:
    """Return what is wrong with a network-config."""
    faults = network_faults(text)
    assert {fault.pointer for fault in faults} <= {"/cloudInit/networkConfig"}
    return [fault.detail for fault in faults]


NONE_OF_ITS_TAG = ("bool foo", 'int ""', "int '-'", "float ''", "timestamp foo", "int 0x")


ALIASES = """\
version: 2
ethernets:
  eth0: &e {dhcp4: true, optional: true}
  eth1: *e
  eth2: {<<: *e, mtu: 1400}
"""
STATIC = """\
version: 2
ethernets:
  eth0:
    match: {driver: [virtio]}
    set-name: lan
    addresses: [192.0.2.5/24, '2001:db8::5/64', {192.0.2.6/24: {label: x}}]
    gateway4: 192.0.2.1
    nameservers: {search: [a.example], addresses: [192.0.2.1, '2001:db8::1']}
    routes: [{to: default, via: 192.0.2.1, metric: 5}]
"""
OTHERS = """\
version: 2
renderer: networkd
ethernets: {eth0: {macaddress: random, dhcp6: }}
vlans: {v: {id: 5, link: eth0}}
bridges: {b: {interfaces: [eth0]}}
"""
FIRST = """\
version: 1
config:
- {type: physical, name: eth0, mac_address: '52:54:00:12:34:56', subnets: [{type: dhcp}]}
- {type: nameserver, address: 192.0.2.1}
"""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version: 2",
        "{version: 2, ethernets: {eth0: {match: {macaddress: '52:54:00:12:34:56'}, dhcp4: true}}}",
        "network:\n  version: 2\n  ethernets:\n    eth0: {dhcp4: yes}\n",
        ALIASES,
        STATIC,
        OTHERS,
        FIRST,
        "version: 1\nconfig: disabled\n",
        "config: disabled\n",
        "# a comment\n---\nversion: 2\n",
    ],
)
def test_what_cloud_init_reads_is_taken(text: str) -> None:
    assert told(text) == []


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("version: 3", "version must be 1 or 2"),
        ("version: '2'", "version must be 1 or 2"),
        ("version: true", "version must be 1 or 2"),
        ("ethernets: {}", "version is missing"),
        ("[]", "must be a mapping"),
        ("# nothing", "must be a mapping"),
        ("dhcp", "must be a mapping"),
        ("network: []", "network must be a mapping"),
        ("version: 2\nethernet: {}", "ethernet is not known"),
        ("version: 2\nethernets: []", "ethernets must be a mapping of devices"),
        ("version: 2\nethernets: {eth0: true}", "ethernets.eth0 must be a mapping"),
        ("version: 2\nethernets: {1: {}}", "ethernets.#1: its id must be a text"),
        ("version: 2\nethernets: {eth0: {dhcp4: maybe}}", "ethernets.eth0.dhcp4 must be true or false"),
        ("version: 2\nethernets: {e: {match: {macaddress: 52:54:00:12:34:56}}}", "put it in quotes"),
        ("version: 2\nethernets: {e: {match: {macaddress: x}}}", "must be six bytes"),
        ("version: 2\nethernets: {e: {match: x}}", "ethernets.e.match must be a mapping"),
        ("version: 2\nethernets: {e: {set-name: x}}", "set-name needs match"),
        ("version: 2\nethernets: {e: {addresses: 192.0.2.5/24}}", "addresses must be a list"),
        ("version: 2\nethernets: {e: {addresses: [192.0.2.5]}}", "addresses[0] must be an IP address with"),
        ("version: 2\nethernets: {e: {addresses: [192.0.2.500/24]}}", "addresses[0] must be an IP"),
        ("version: 2\nethernets: {e: {gateway4: here}}", "gateway4 must be an IP address"),
        ("version: 2\nethernets: {e: {mtu: '1500'}}", "mtu must be a whole number"),
        ("version: 2\nethernets: {e: {nameservers: [192.0.2.1]}}", "nameservers must be a mapping"),
        ("version: 2\nethernets: {e: {nameservers: {addresses: [x]}}}", "nameservers.addresses[0] must be"),
        ("version: 2\nethernets: {e: {routes: [{via: x}]}}", "routes[0].via must be an IP address"),
        ("version: 1", "config must be a list"),
        ("version: 1\nconfig: [x]", "config[0] must be a mapping"),
        ("version: 1\nconfig: [{type: magic}]", "config[0].type must be one of"),
        ("version: 1\nconfig: [{type: physical}]", "config[0].name must be a text"),
        ("version: 1\nconfig: [{type: physical, name: e, mac_address: x}]", "must be six bytes"),
        ("version: 2\nversion: 1", "gives a key twice (line 2, column 1)"),
        ("version: 2\nethernets: {e: {}, e: {}}", "gives a key twice (line 2, column 20)"),
        ("version: 2\n---\nversion: 2", "more than one document"),
        ("version: [", "is not YAML (line "),
        ("version: \t2\n\t- x", "is not YAML (line 2"),
        ("a: *b", "has an alias of what is not complete (line 1, column 4)"),
        ("a: &a [*a]", "has an alias of what is not complete"),
        ("!!python/object/apply:os.system [id]", "is not YAML"),
        ("version: !!timestamp 2001-99-99", "holds a value that its form does not allow"),
        *((f"version: !!{value}", "holds a value that its form does not allow") for value in NONE_OF_ITS_TAG),
        ("version: " + "1:" * 30_000 + "1", "has a number of more than 256 characters (line 1, column 10)"),
        ("? {a: b}\n: c", "is not YAML"),
        ("version: \x01", "characters that are none in YAML"),
        ("[" * 1000, "nested at most"),
        ("{version: " * 60 + "2" + "}" * 60, "nested at most"),
        ("- " * 500 + "x", "nested at most"),
        (LAUGHS, "counting what aliases stand for"),
        (MERGED, "counting what aliases stand for"),
        ("x: [" + "1," * 25_000 + "]", "at most 20000 nodes"),
        ("x" * (MAX_NETWORK_CONFIG_BYTES + 1), "must be at most 64 KiB"),
    ],
)
def test_what_cloud_init_would_stumble_over_is_refused(text: str, part: str) -> None:
    assert [detail for detail in told(text) if part in detail], told(text)


def test_all_faults_are_told_up_to_a_bound() -> None:
    both = told("version: 2\nethernets: {a: {dhcp4: 1, dhcp6: 1}}\ncolour: red")
    assert len(both) == 3
    many = told("version: 2\nethernets: {" + ", ".join(f"e{n}: 1" for n in range(100)) + "}")
    assert len(many) == 33
    assert "more faults" in many[-1]


@pytest.mark.parametrize(
    "text",
    [
        "version: 2\n'CANARY 77': 1",
        "CANARY: [",
        "version: 2\nethernets: {e: {mtu: CANARY}}",
        "&CANARY x: *CANARY2",
    ],
)
def test_no_value_is_repeated(text: str) -> None:
    assert "CANARY" not in str(told(text)).replace("CANARY is not known", "")


def test_a_user_data_has_a_size_and_nothing_else_is_refused() -> None:
    at = "/cloudInit/userdata"
    assert [f.detail for f in user_data_faults(bytes(MAX_USER_DATA_BYTES + 1), at)] == [
        "must be at most 512 KiB"
    ]
    assert user_data_faults(bytes(MAX_USER_DATA_BYTES), at) == []


ALL = FirstBoot(("k",), "web", ("nginx",))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"#cloud-config\n",
        b"#cloud-config\nruncmd: [echo]\n",
        b"#cloud-config # and more\n{",
        b"#Cloud-Config\r\nruncmd: []\r\n",
        b"## template: jinja\n#cloud-config\nhostname: {{ v1.instance_id }}\n",
        b"#!/bin/sh\n:",
        b"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x--\n",
        b"#cloud-config-archive\n- {",
        b"#include\nhttps://example.org/\n",
        gzip.compress(b"nothing"),
        b"#cloud-config\nx: [" + b"1," * 60_000 + b"]",
    ],
)
def test_nothing_is_remarked_where_nothing_is_wrong(data: bytes) -> None:
    assert user_data_remarks(data, ALL) == ()


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"hello", "ignored"),
        (b"\x00\xff", "ignored"),
        (b"#cloud-config\nCANARY: [\n", "is not YAML (line 3, column 1)"),
        (b"#cloud-config\nCANARY: \xff\n", "is not UTF-8"),
        (b"#cloud-config\nCANARY: !!bool CANARY\n", "holds a value that its form does not allow"),
        (b"#cloud-config\nCANARY: " + b"1:" * 200_000 + b"1\n", "has a number of more than 256 characters"),
        (b"#cloud-config\n- CANARY\n", "is no mapping"),
        (b"#cloud-config\nCANARY: 1\nCANARY: 2\n", "gives a key twice (line 3, column 1)"),
        (b"#cloud-config\npackages: [CANARY]\n", "packages of its own"),
        (b"#cloud-config\nfqdn: CANARY.example\n", "host name of its own"),
        (b"#cloud-config\nvendor_data: {enabled: false}\n", "switches vendor-data off"),
    ],
)
def test_what_seems_wrong_is_remarked_and_not_repeated(data: bytes, part: str) -> None:
    (remark,) = user_data_remarks(data, ALL)
    assert part in remark
    assert "CANARY" not in remark


def test_what_overrides_nothing_is_not_remarked() -> None:
    assert user_data_remarks(b"#cloud-config\npackages: [a]\nhostname: b\n", FirstBoot()) == ()
