"""Command line: ``python -m vm_host --config FILE``, or ``--ping SOCKET`` as a health check."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vm_host.app import serve
from vm_host.errors import VmHostError
from vm_host.logs import configure_logs
from vm_host.ping import ping
from vm_host.settings import load


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 1 with the fault on stderr."""
    parser = argparse.ArgumentParser(prog="vm_host", description="Parent process of QEMU.")
    parser.add_argument("--config", type=Path, help="JSON settings; variables QC_VM_HOST_* go over them")
    parser.add_argument("--ping", type=Path, metavar="SOCKET", help="exit 0 if a vm-host answers there")
    options = parser.parse_args(arguments)
    try:
        if options.ping is not None:
            ping(options.ping)
            return 0
        settings = load(options.config, os.environ)
        configure_logs(settings.log_level)
        serve(settings)
    except (VmHostError, OSError) as exc:
        sys.stderr.write(f"vm-host: {exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
