"""`make doctor`: what the running stack finds wrong with its hosts, and what to do about it.

Where no stack runs it tells what can be told without one: the ports, and what containers would lack.
"""

import http.client
from collections.abc import Callable, Iterable, Mapping
from typing import Final
from urllib.parse import quote

from qcstack import compose, lifecycle
from qcstack.demo.rest import CallError, RestClient
from qcstack.layout import StackLayout

Check = Mapping[str, str]
_FAIL: Final = "FAIL"


def report(layout: StackLayout, write: Callable[[str], object] = print) -> int:
    """Print all checks; 0 unless one of them failed.

    Raises:
        StackError: What answers is no stack that works.
    """
    rest = RestClient(layout.gateway_port, lambda _curl: None)
    try:
        nodes = rest.call("GET", "/v1/nodes").body["nodes"]
        found = {
            node["name"]: rest.call("GET", f"/v1/nodes/{quote(node['name'])}/doctor").body["checks"]
            for node in nodes
        }
    except ConnectionRefusedError:
        write(f"no stack answers on {layout.base_url} (`make up` starts one); without it can be told:")
        return _show(before_a_start(layout), write)
    except (CallError, OSError, http.client.HTTPException, LookupError, TypeError) as exc:
        raise lifecycle.StackError(f"{layout.base_url} does not tell: {exc!r}") from exc
    code = 0
    for name, checks in found.items():
        write(f"{name}:")
        code |= _show(checks, write)
    write("this host:")
    return code | _show([engine_check()], write)


def before_a_start(layout: StackLayout) -> list[Check]:
    """Return what is known of this host while no stack runs."""
    checks: list[Check] = []
    try:
        lifecycle.refuse_taken_ports(layout)
        checks.append({"name": "ports", "status": "PASS", "detail": "the stack's ports are free.", "fix": ""})
    except lifecycle.StackError as exc:
        checks.append({"name": "ports", "status": _FAIL, "detail": str(exc), "fix": ""})
    return [*checks, engine_check()]


def engine_check() -> Check:
    """Tell what the container engine lacks; its settings cannot be seen from inside a container."""
    name = "engine"
    if lacking := compose.lacking():
        return {
            "name": name,
            "status": "WARN",
            "detail": f"{lacking}: `make up` starts plain processes.",
            "fix": "`tools/engine start` (as root, on Debian) brings what is missing.",
        }
    if not compose.keeps_containers():
        return {
            "name": name,
            "status": "WARN",
            "detail": "containers can run; a restart of the engine ends them, and the machines in them.",
            "fix": 'set "live-restore": true in the engine\'s daemon.json and reload it.',
        }
    return {"name": name, "status": "PASS", "detail": "containers can run, and survive the engine's restart."}


def _show(checks: Iterable[Check], write: Callable[[str], object]) -> int:
    code = 0
    for check in checks:
        write(f"  {check['status']}  {check['name']:24} {check['detail']}")
        if check.get("fix"):
            write(f"        {'':24} → {check['fix']}")
        code |= check["status"] == _FAIL
    return int(code)
