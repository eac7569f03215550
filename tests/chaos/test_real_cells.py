"""Cells of the kill matrix with real QEMU: a sample, and more of them in the long suite."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from framework import evidence, guests
from framework.api_client import BlockingApiClient
from framework.cloud import Cloud
from framework.stack import running_stack
from qcstack import host_snapshot
from realcells.cells import Cell, all_cells, sample
from realcells.stand import Stand

SEED = int(os.environ.get("QC_CHAOS_SEED", "5"))
SAMPLE = int(os.environ.get("QC_CHAOS_CELLS", "20"))
LONG = 150

pytestmark = pytest.mark.real


def drawn() -> list[object]:
    """Return the cells to play; those of the long suite are marked."""
    first = sample(SAMPLE, SEED)
    more = [cell for cell in sample(max(LONG, SAMPLE), SEED) if cell not in first]
    return [
        *(pytest.param(cell, id=str(cell)) for cell in first),
        *(pytest.param(cell, id=str(cell), marks=pytest.mark.full) for cell in more),
    ]


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    guests.tiny()
    moment = tmp_path_factory.mktemp("moment") / "name"
    before = host_snapshot.take()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QC_FAIL_POINT_FILE", str(moment))
        with running_stack("qc-cell-") as stack, BlockingApiClient(stack.base_url) as api:
            cloud = Cloud(stack, api)
            cloud.upload("tiny", guests.tiny())
            yield Stand(cloud, stack, moment)
    assert host_snapshot.take().left_since(before) == {}


@pytest.mark.parametrize("cell", drawn())
def test_the_cell_ends_well(stand: Stand, cell: Cell, request: pytest.FixtureRequest) -> None:
    if cell.victim == "dnsmasq" and os.geteuid() != 0:
        pytest.skip("without root there is no bridge network, and so no dnsmasq")
    stand.ready()
    try:
        stand.play(cell)
    except BaseException:
        folder = evidence.keep(stand.stack, f"cell-{cell}".replace("/", "-"))
        test = f"tests/chaos/test_real_cells.py::test_the_cell_ends_well[{cell}]"
        again = f"QC_CHAOS_CELLS={SAMPLE} QC_CHAOS_SEED={SEED} .venv/bin/python -m pytest '{test}'"
        print(f"evidence: {folder}\nreproduce: {again}")
        raise


def test_a_sample_has_every_operation_and_every_victim() -> None:
    chosen = sample(20, SEED)
    assert len(chosen) == len(set(chosen)) == 20
    assert {cell.operation for cell in chosen} == {cell.operation for cell in all_cells()}
    assert {cell.victim for cell in chosen} == {cell.victim for cell in all_cells()}
    assert sample(20, SEED) == chosen, "a seed says which"


def test_moments_are_written_to_a_file_that_is_gone_once_they_are_reached(tmp_path: Path) -> None:
    assert Cell("launch", "runner.start.before", "qemu-runner").ends_itself
    assert not Cell("launch", "step.power.after_do", "qemu-runner").ends_itself
