"""Mechanism that every service shares: settings, logs, telemetry, gRPC bootstrap and error encoding.

Nothing here knows what the services are about.
"""

import os

# gRPC's fork handlers kill children of a process that spawns while calls are in flight (docs/surprises.md);
# the variable counts only if it is set before grpc is first imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
