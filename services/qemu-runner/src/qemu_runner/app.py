"""Composition root: wires the runner together and keeps it together while it runs."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry
from qcontroller.runner.v1 import runner_pb2, runner_pb2_grpc
from qcontroller.settings.v1.settings_pb2 import RunnerSettings
from servicekit.channel import grpc_channel
from servicekit.failpoints import fail_points_of
from servicekit.server import grpc_server

from qemu_runner.adapters.boot_spans import emit_phase
from qemu_runner.adapters.image_store import GrpcBlobSource
from qemu_runner.adapters.vm_host import StopRecord, VmHostClient, read_stop_record
from qemu_runner.adapters.vm_host.codec import AnswerInvalid
from qemu_runner.bridge_network import BridgeNetwork
from qemu_runner.bridge_network.wiring import BridgeSettings, build_bridge_network
from qemu_runner.error_table import translate
from qemu_runner.existing_bridge import ExistingBridges
from qemu_runner.existing_bridge.wiring import build_existing_bridges
from qemu_runner.guest_servicer import GuestServicer
from qemu_runner.ports import BlobSource, LastWords, VmHostDoor
from qemu_runner.service.actions import Actions
from qemu_runner.service.adoption import Adoption
from qemu_runner.service.boot import PhaseSink
from qemu_runner.service.capacity import Capacity
from qemu_runner.service.console_sessions import ConsoleSessions
from qemu_runner.service.console_sizes import ConsoleSizes
from qemu_runner.service.consoles import Consoles
from qemu_runner.service.doctor import Doctor
from qemu_runner.service.ending import Ending
from qemu_runner.service.evidence import Evidence
from qemu_runner.service.exits import Exits
from qemu_runner.service.freezing import Freezing
from qemu_runner.service.guest import Guests
from qemu_runner.service.guest_accounts import GuestAccounts
from qemu_runner.service.guest_reports import GuestReports
from qemu_runner.service.guest_transfers import GuestTransfers
from qemu_runner.service.host import Host, host_size
from qemu_runner.service.hub import Hub
from qemu_runner.service.leaving import WORD_WITHIN_S, Leaving
from qemu_runner.service.machines import Machine, Machines
from qemu_runner.service.networking import Networking
from qemu_runner.service.planning import Planning
from qemu_runner.service.power import Power
from qemu_runner.service.preparation import Preparation, UidRange
from qemu_runner.service.probe_targets import probe_target
from qemu_runner.service.quarantine import Quarantine
from qemu_runner.service.removal import Removal
from qemu_runner.service.starting import Starting
from qemu_runner.service.tasks import Tasks
from qemu_runner.service.vm_host_link import VmHostLink
from qemu_runner.service.vm_hosts import VmHosts
from qemu_runner.service.watching import Watching
from qemu_runner.servicer import HostServicer, MachineServicer, Services
from qemu_runner.settings import Configuration, parse_settings
from qemu_runner.store.file_growth import FileGrowth
from qemu_runner.store.host_speed import HostSpeed
from qemu_runner.store.image_cache import ImageCache
from qemu_runner.store.machine_files import MachineFiles
from qemu_runner.store.machine_store import MachineStore
from qemu_runner.user_network import UserNetwork
from qemu_runner.user_network.wiring import UserNetworkSettings, build_user_network

_LOG = logging.getLogger(__name__)
_SETTLE_S: Final = 10.0


@asynccontextmanager
async def application(
    settings: RunnerSettings, registry: CollectorRegistry
) -> AsyncIterator[asyncio.Future[None]]:
    """Run the service; what it yields ends only if a vm-host's link fails.

    Machines outlive it on purpose: leaving closes connections and touches no process.
    """
    configuration = parse_settings(settings)
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(grpc_channel(configuration.image_store))
        core = await stack.enter_async_context(
            running_core(
                configuration,
                blobs=GrpcBlobSource(channel),
                user_network=_user_network(configuration),
                nat=_nat(configuration),
                bridges=build_existing_bridges(_owner(configuration)),
                door=VmHostClient,
                last_words=_last_words,
                sink=emit_phase,
            )
        )
        services, work = core
        machine_service = runner_pb2.DESCRIPTOR.services_by_name["MachineService"].full_name
        guest_service = runner_pb2.DESCRIPTOR.services_by_name["GuestService"].full_name
        host_service = runner_pb2.DESCRIPTOR.services_by_name["HostService"].full_name
        await stack.enter_async_context(
            grpc_server(
                configuration.listen,
                services=[
                    (
                        machine_service,
                        lambda server: runner_pb2_grpc.add_MachineServiceServicer_to_server(
                            MachineServicer(services), server
                        ),
                    ),
                    (
                        guest_service,
                        lambda server: runner_pb2_grpc.add_GuestServiceServicer_to_server(
                            GuestServicer(services), server
                        ),
                    ),
                    (
                        host_service,
                        lambda server: runner_pb2_grpc.add_HostServiceServicer_to_server(
                            HostServicer(services), server
                        ),
                    ),
                ],
                translate=translate,
                registry=registry,
                fail_point=fail_points_of(os.environ),
            )
        )
        yield work


@asynccontextmanager
async def running_core(
    configuration: Configuration,
    *,
    blobs: BlobSource,
    user_network: UserNetwork,
    nat: BridgeNetwork | None,
    bridges: ExistingBridges,
    door: VmHostDoor,
    last_words: LastWords,
    sink: PhaseSink,
    word_within_s: float = WORD_WITHIN_S,
) -> AsyncIterator[tuple[Services, asyncio.Future[None]]]:
    """Run everything but the gRPC server; yield the services and what must not end.

    It begins to serve when each vm-host has been asked once, or was found away, so that what happened
    in between is known from the first answer on.
    """
    async with AsyncExitStack() as stack:
        growth = stack.enter_context(FileGrowth())
        tasks = await stack.enter_async_context(Tasks())
        store = MachineStore(configuration.state_dir)
        files = MachineFiles(configuration.state_dir)
        images = ImageCache(configuration.state_dir, blobs, configuration.image_cache_bytes)
        networking = Networking(
            user_network, nat, bridges, configuration.default_network, _owner(configuration)
        )
        hub = Hub()
        machines = Machines(store, hub, networking.address, networking.neighbours)
        await machines.load()
        await images.create()
        actions = Actions(machines, tasks, fail_points_of(os.environ))
        capacity = Capacity(host_size(configuration.cpus, configuration.memory_mib), machines.records)
        exits = Exits(machines, files, networking)
        links: list[VmHostLink] = []
        vm_hosts = VmHosts(links, machines.records)

        async def monitor_lost(machine: Machine) -> None:
            await adoption.monitor_lost(machine)

        consoles = Consoles(files, growth, configuration.console_limit_bytes)
        watching = Watching(
            machines,
            files,
            consoles,
            sink,
            probe_target,
            monitor_lost,
            tasks,
        )
        adoption = Adoption(machines, files, exits, watching, hub, vm_hosts.of, tasks)
        links += [VmHostLink(path, door, adoption, last_words) for path in configuration.vm_hosts]
        guests = Guests(machines)
        ending = Ending(machines, vm_hosts.of, adoption.settle, links)
        services = Services(
            machines=machines,
            actions=actions,
            planning=Planning(
                machines,
                files,
                networking,
                capacity,
                vm_hosts.newest,
                configuration.accelerator,
                configuration.extra_arguments,
            ),
            preparation=Preparation(machines, files, images, networking, _uids(configuration)),
            starting=Starting(
                machines,
                files,
                networking,
                capacity,
                exits,
                ending,
                watching,
                vm_hosts.newest,
                adoption.settle,
                configuration.accelerator,
                configuration.extra_arguments,
            ),
            ending=ending,
            power=Power(machines),
            removal=Removal(machines, files, images, networking, ending),
            quarantine=Quarantine(machines, store),
            console_sessions=ConsoleSessions(machines, files, consoles, growth, ConsoleSizes(guests)),
            consoles=consoles,
            guests=guests,
            guest_reports=GuestReports(machines, guests),
            guest_transfers=GuestTransfers(guests),
            guest_accounts=GuestAccounts(guests),
            freezing=Freezing(guests, tasks),
            evidence=Evidence(machines, files),
            host=Host(
                configuration.node,
                configuration.state_dir,
                machines,
                store,
                images,
                networking,
                capacity,
                vm_hosts,
                configuration.accelerator,
                HostSpeed(configuration.state_dir),
                actions.is_busy,
            ),
            doctor=Doctor(configuration.state_dir, networking, vm_hosts),
        )
        running = [tasks.begin(link.run(), name=f"vm-host link {link.socket_path}") for link in links]
        async with asyncio.timeout(_SETTLE_S):
            for link in links:
                await link.settled.wait()
        running += [tasks.begin(part, name=name) for name, part in networking.followers(machines.tell_all)]
        # It is known now which machines run, and so what on the host belongs to none.
        await networking.adopt(machines.records())
        work = asyncio.ensure_future(_first_end(running))
        stack.callback(work.cancel)
        # Left first, while the links still tell what becomes of vm-host.
        stack.push_async_callback(Leaving(machines, vm_hosts, networking, word_within_s=word_within_s).leave)
        # The first launch need not wait for what can be known before.
        tasks.begin(_probe_early(user_network), name="probe of the user network")
        yield services, work


async def _probe_early(user_network: UserNetwork) -> None:
    _LOG.info("user network", extra={"availability": str(await user_network.availability())})


def _last_words(socket_path: Path) -> StopRecord | None:
    try:
        return read_stop_record(socket_path)
    except (AnswerInvalid, OSError) as exc:
        _LOG.warning("vm-host's stop record unreadable", extra={"error": str(exc)})
        return None


async def _first_end(tasks: Sequence[asyncio.Task[None]]) -> None:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


def _uids(configuration: Configuration) -> UidRange:
    # Without root nobody can be given another uid; QEMU keeps the caller's.
    return UidRange(configuration.uid_base, configuration.uid_count if os.geteuid() == 0 else 0)


def _owner(configuration: Configuration) -> str:
    """Return the mark on everything that this runner makes on the host."""
    return f"{configuration.node} {configuration.state_dir}"


def _nat(configuration: Configuration) -> BridgeNetwork | None:
    bridge = configuration.bridge
    if bridge is None:
        return None
    return build_bridge_network(
        BridgeSettings(
            state_dir=configuration.state_dir,
            owner=_owner(configuration),
            interface=bridge.interface,
            subnet=bridge.subnet,
            avoid=(configuration.user_subnet,),
        )
    )


def _user_network(configuration: Configuration) -> UserNetwork:
    as_root = os.geteuid() == 0
    return build_user_network(
        UserNetworkSettings(
            state_dir=Path(configuration.state_dir),
            owner=_owner(configuration),
            uid_first=configuration.uid_base if as_root else None,
            uid_last=configuration.uid_base + configuration.uid_count - 1 if as_root else None,
            subnet=configuration.user_subnet,
            backend=configuration.user_backend,
            vm_hosts=configuration.vm_hosts,
        )
    )
