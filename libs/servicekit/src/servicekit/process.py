"""The life of a service's process: arguments, settings, signals, exit status."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.message import Message
from prometheus_client import CollectorRegistry, start_http_server
from qcontroller.settings.v1.settings_pb2 import TelemetrySettings

from servicekit.logs import configure_logs
from servicekit.server import AddressInUseError
from servicekit.settings import SettingsError, load_settings
from servicekit.telemetry import telemetry

_LOG = logging.getLogger(__name__)


SettingsT = TypeVar("SettingsT", bound=Message)
# An application is an async context manager; entering it starts the service, and what it yields is
# awaited beside the signals: a service whose work ends by itself has failed.
Application = Callable[
    [SettingsT, CollectorRegistry], AbstractAsyncContextManager[asyncio.Future[None] | None]
]


def run_service(name: str, settings: SettingsT, application: Application[SettingsT]) -> None:
    """Run `application` until SIGTERM or SIGINT; exit 0 then, 2 for bad settings, 1 for a failure.

    The configuration file is the argument `--config`; variables begin with QC_<NAME>_.
    """
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("--config", type=Path, help="JSON file: protojson of the service's settings message")
    arguments = parser.parse_args()
    prefix = f"QC_{name.replace('-', '_').upper()}_"
    try:
        load_settings(settings, arguments.config, env_prefix=prefix, environ=os.environ)
    except SettingsError as exc:
        parser.exit(2, f"{name}: {exc}\n")
    common: TelemetrySettings = settings.telemetry  # type: ignore[attr-defined]  # every service's message has it
    configure_logs(name, common.log_level)
    registry = CollectorRegistry()
    if common.metrics_port:
        start_http_server(common.metrics_port, addr="127.0.0.1", registry=registry)
    with telemetry(name, common):
        try:
            asyncio.run(_serve(name, settings, application, registry))
        except SettingsError as exc:
            parser.exit(2, f"{name}: {exc}\n")
        except AddressInUseError as exc:
            parser.exit(1, f"{name}: {exc}\n")
        except Exception:  # noqa: BLE001 - the edge of the process: logged, then told by the exit status
            _LOG.exception("service failed")
            sys.exit(1)


async def _serve(
    name: str, settings: SettingsT, application: Application[SettingsT], registry: CollectorRegistry
) -> None:
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled.set)
    # A supervisor may have started us deaf, so that a signal to end waits until it can be heard.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
    waiting = loop.create_task(signalled.wait())
    async with application(settings, registry) as work:
        _LOG.info("service started", extra={"pid": os.getpid()})
        watched: set[asyncio.Future[Any]] = {waiting}
        if work is not None:
            watched.add(work)
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        if work is not None and work.done():
            waiting.cancel()
            work.result()
            raise RuntimeError(f"{name}: the service's work ended by itself")
    _LOG.info("service stopped")
