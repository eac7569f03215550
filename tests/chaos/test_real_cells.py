"""Cells of the kill matrix with real QEMU: a sample, and more of them in the long suite."""

import os
from collections.abc import Iterator

import pytest
from framework import evidence, guests
from framework.api_client import BlockingApiClient
from framework.cloud import Cloud
from framework.stack import running_stack
from qcstack import host_snapshot
from qcstack.minio import MinioMissingError, MinioServer
from realcells.cells import Cell, How, all_cells, moments_of, sample, traits
from realcells.edges import Edges
from realcells.stand import Stand
from realcells.strikes import Strikes

SEED = int(os.environ.get("QC_CHAOS_SEED", "5"))
SAMPLE = int(os.environ.get("QC_CHAOS_CELLS", "20"))
LONG = 150
# How long lasts what passes: something stands still, is locked, is full.
LASTS_S = float(os.environ.get("QC_CHAOS_LASTS_S", "2"))
LASTS_LONG_S = 30.0
# The state lies on a file system of its own, which can be filled, where the test may mount one.
STATE_MIB = 1024 if os.geteuid() == 0 else None

pytestmark = [pytest.mark.real, pytest.mark.minio]


def drawn() -> list[object]:
    """Return the cells to play; those of the long suite are marked."""
    first = sample(SAMPLE, SEED)
    more = [cell for cell in sample(max(LONG, SAMPLE), SEED) if cell not in first]
    return [
        *(pytest.param(cell, LASTS_S, id=str(cell)) for cell in first),
        *(pytest.param(cell, LASTS_LONG_S, id=str(cell), marks=pytest.mark.full) for cell in more),
    ]


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    guests.tiny()
    files = tmp_path_factory.mktemp("cells")
    edges = Edges(files)
    try:
        minio = MinioServer(files / "minio")
    except MinioMissingError as exc:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(exc))
    settings = {
        "QC_FAIL_POINT_FILE": files / "moment",
        "QC_CLOCK_STEP_FILE": files / "clock",
        "QC_IMAGE_STORE_DIRECTORY__PATH": "",
        "QC_IMAGE_STORE_S3__ENDPOINT": minio.endpoint,
        "QC_IMAGE_STORE_S3__BUCKET": "images",
        "QC_IMAGE_STORE_S3__ACCESS_KEY_FILE": minio.access_key_file,
        "QC_IMAGE_STORE_S3__SECRET_KEY_FILE": minio.secret_key_file,
        # New images come with some cells: the small file system must not fill up with them.
        "QC_QEMU_RUNNER_IMAGE_CACHE": "64M",
        **edges.settings(),
    }
    before = host_snapshot.take()
    with minio, pytest.MonkeyPatch.context() as patch:
        for variable, value in settings.items():
            patch.setenv(variable, str(value))
        with (
            running_stack("qc-cell-", state_mib=STATE_MIB, beside=edges.before) as stack,
            BlockingApiClient(stack.base_url) as api,
        ):
            cloud = Cloud(stack, api)
            cloud.upload("tiny", guests.tiny())
            strikes = Strikes(stack, edges, minio, files / "clock")
            yield Stand(cloud, stack, files / "minio" / "data", strikes, files / "moment")
    assert host_snapshot.take().left_since(before) == {}


@pytest.mark.parametrize(("cell", "lasting_s"), drawn())
def test_the_cell_ends_well(
    stand: Stand, cell: Cell, lasting_s: float, request: pytest.FixtureRequest
) -> None:
    if os.geteuid() != 0 and (cell.victim == "dnsmasq" or cell.how is How.FULL):
        pytest.skip("without root there is no bridge network with its dnsmasq, and no file system to fill")
    stand.ready()
    try:
        stand.play(cell, lasting_s)
    except BaseException:
        folder = evidence.keep(stand.stack, f"cell-{cell}".replace("/", "-"))
        test = f"tests/chaos/test_real_cells.py::test_the_cell_ends_well[{cell}]"
        again = f"QC_CHAOS_CELLS={SAMPLE} QC_CHAOS_SEED={SEED} .venv/bin/python -m pytest '{test}'"
        print(f"evidence: {folder}\nreproduce: {again}")
        raise


def test_a_sample_has_every_operation_every_victim_and_every_way() -> None:
    chosen = sample(20, SEED)
    assert len(chosen) == len(set(chosen)) == 20
    wanted = set().union(*map(traits, all_cells()))
    assert set().union(*map(traits, chosen)) == wanted
    assert sample(20, SEED) == chosen, "a seed says which"


def test_each_process_can_be_drawn_at_each_step_of_each_operation() -> None:
    processes = {"gateway", "controller", "image-store", "qemu-runner", "vm-host", "QEMU", "dnsmasq", "MinIO"}
    cells = set(all_cells())
    operations = {cell.operation for cell in cells} - {"upload"}
    missing = {
        (operation, moment, how, process)
        for operation in operations
        for moment in moments_of(operation)
        for how in (How.KILLED, How.FROZEN)
        for process in processes
        if Cell(operation, moment, how, process) not in cells
    }
    assert missing == set()


def test_who_comes_to_a_moment_is_known_by_its_name() -> None:
    def holder(moment: str) -> str:
        return Cell("launch", moment, How.KILLED, "qemu-runner").holder

    assert holder("step.power.after_do") == holder("rpc.LaunchInstance.before") == "controller"
    assert holder("runner.start.before") == holder("rpc.StartMachine.after") == "qemu-runner"
    assert holder("rpc.PinImage.after") == holder("upload.sealed") == "image-store"
