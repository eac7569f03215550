#!/usr/bin/env python3
"""A QEMU as far as its monitor goes: speaks QMP on a descriptor and powers down when it feels like it.

Arguments: descriptor, run state, and how often the power button must be pressed (0: it never obeys).
"""

import json
import socket
import sys


def main() -> None:
    number, run_state, presses = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    with socket.socket(fileno=number) as monitor:
        monitor.sendall(b'{"QMP": {"version": {}, "capabilities": []}}\r\n')
        for line in monitor.makefile("rb"):
            command = json.loads(line)
            name = command["execute"]
            sys.stderr.write(name + "\n")
            sys.stderr.flush()
            answer = {"status": run_state} if name == "query-status" else {}
            if name == "cont":
                run_state = "running"
            monitor.sendall(json.dumps({"return": answer, "id": command["id"]}).encode() + b"\r\n")
            if name == "quit":
                sys.exit(3)
            if name == "system_powerdown" and run_state == "running":
                presses -= 1
                if presses == 0:
                    sys.exit(0)


main()
