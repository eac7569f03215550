"""Runs a real bridge network in the network namespace that this process was started in.

It answers calls of the test that come over a socket, one JSON message each; descriptors of a tap go back
with the answer. What it raises goes back by name.
"""

import array
import asyncio
import json
import socket
import sys
from dataclasses import asdict
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from qemu_runner.bridge_network import (
    BridgeNetwork,
    BridgeNetworkError,
    BridgeNic,
    Protocol,
    PublishedPort,
    Refused,
)
from qemu_runner.bridge_network.wiring import BridgeSettings, build_bridge_network


def encode_nic(nic: BridgeNic) -> dict[str, Any]:
    return {**asdict(nic), "address": str(nic.address), "ports": encode_ports(nic.ports)}


def encode_ports(ports: tuple[PublishedPort, ...]) -> list[dict[str, Any]]:
    return [{**asdict(port), "address": str(port.address)} for port in ports]


def _ports(encoded: list[dict[str, Any]]) -> tuple[PublishedPort, ...]:
    return tuple(
        PublishedPort(p["host"], p["guest"], Protocol(p["protocol"]), IPv4Address(p["address"]))
        for p in encoded
    )


def _nic(encoded: dict[str, Any]) -> BridgeNic:
    return BridgeNic(
        **{**encoded, "address": IPv4Address(encoded["address"]), "ports": _ports(encoded["ports"])}
    )


async def _answer(network: BridgeNetwork, call: str, given: Any) -> tuple[Any, tuple[int, ...]]:
    match call:
        case "availability":
            verdict = await network.availability()
            refused = isinstance(verdict, Refused)
            return {"refused": refused, **{k: str(v) for k, v in asdict(verdict).items()}}, ()
        case "reserve":
            return str(await network.reserve([IPv4Address(a) for a in given])), ()
        case "attach":
            tap = await network.attach(_nic(given))
            return tap.interface, tap.taps
        case "detach":
            await network.detach(given)
        case "publish":
            await network.publish(given["machine"], _ports(given["ports"]))
        case "check_ports":
            await network.check_ports(given["machine"], _ports(given["ports"]), ())
        case "adopt":
            await network.adopt([_nic(nic) for nic in given])
        case "leaks":
            return [asdict(leak) for leak in await network.leaks(given)], ()
        case "checks":
            return [asdict(check) for check in await network.checks()], ()
        case "leave":
            await network.leave()
        case _:
            raise AssertionError(f"unknown call {call}")
    return None, ()


async def _serve(channel: socket.socket, network: BridgeNetwork) -> None:
    loop = asyncio.get_running_loop()
    supervision = asyncio.create_task(network.run())
    while message := await loop.sock_recv(channel, 1 << 20):
        asked = json.loads(message)
        fds: tuple[int, ...] = ()
        try:
            result, fds = await _answer(network, asked["call"], asked["given"])
            answer = {"result": result}
        except BridgeNetworkError as error:
            answer = {"error": type(error).__name__, "text": str(error)}
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        channel.sendmsg([json.dumps(answer).encode()], ancillary)
        for fd in fds:
            socket.close(fd)
        if supervision.done():
            supervision.result()
    supervision.cancel()
    await asyncio.gather(supervision, return_exceptions=True)


def main(fd: str, settings: str) -> None:
    told = json.loads(settings)
    network = build_bridge_network(
        BridgeSettings(
            state_dir=Path(told["state_dir"]),
            owner=told["owner"],
            interface=told["interface"],
            subnet=IPv4Network(told["subnet"]),
            avoid=(IPv4Network("10.77.0.0/16"),),
            resolv_conf=Path(told["resolv_conf"]),
            dnsmasq=told["dnsmasq"],
        )
    )
    with socket.socket(fileno=int(fd)) as channel:
        channel.setblocking(False)
        asyncio.run(_serve(channel, network))


if __name__ == "__main__":
    main(*sys.argv[1:])
