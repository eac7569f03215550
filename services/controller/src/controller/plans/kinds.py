"""The plans: which steps make up each kind of operation, and where each turns from undoing to going on."""

from controller.domain.verdict import Observation
from controller.instances.image_imports import IMPORT_IMAGE
from controller.operations import Plan, StepContext
from controller.plans.fetch_steps import FetchImage, image_imported
from controller.plans.image_steps import PinImage, PinImageAgain, UnpinImage
from controller.plans.import_steps import ClaimMachine, LookAtMachine, PinWhatIsThere
from controller.plans.machine_steps import (
    BeginRemoval,
    MakeMachine,
    PrepareMachine,
    RemoveMachine,
    ResizeMachine,
    quiesce,
)
from controller.plans.observe_steps import EndRemains, LookAgain
from controller.plans.power_steps import RUNNING, ConfirmRunning, Pause, PowerOff, PowerOn, Reset, Resume
from controller.plans.settling import Settling
from controller.plans.workbench import Workbench

LAUNCH_STEPS = ("image", "machine", "power", RUNNING)

_OBSERVE_DEADLINE_S = 60.0


def build_plans(bench: Workbench, deadline_s: float) -> list[Plan]:
    """Return every plan; `deadline_s` bounds operations that name no deadline of their own."""
    settling = Settling(bench.changes)

    async def quiet(ctx: StepContext) -> None:
        await quiesce(bench, ctx)

    witness = bench.evidence.witness
    return [
        Plan(
            kind="launch",
            revision=1,
            deadline_s=deadline_s,
            steps=(PinImage(bench), MakeMachine(bench), PowerOn(bench), ConfirmRunning(bench)),
            keep_after=RUNNING,
            quiesce=quiet,
            witness=witness,
            on_settle=settling.launch,
        ),
        Plan(
            kind="start",
            revision=1,
            deadline_s=deadline_s,
            steps=(PinImageAgain(bench), PrepareMachine(bench), PowerOn(bench), ConfirmRunning(bench)),
            keep_after=RUNNING,
            quiesce=quiet,
            witness=witness,
            on_settle=settling.start,
        ),
        Plan(
            kind="restart",
            revision=1,
            deadline_s=deadline_s,
            steps=(
                PowerOff(bench),
                PinImageAgain(bench),
                PrepareMachine(bench),
                PowerOn(bench),
                ConfirmRunning(bench),
            ),
            keep_after=RUNNING,
            quiesce=quiet,
            witness=witness,
            on_settle=settling.restart,
        ),
        Plan(
            kind="stop",
            revision=1,
            deadline_s=deadline_s,
            steps=(PowerOff(bench),),
            quiesce=quiet,
            witness=witness,
            on_settle=settling.stop,
        ),
        Plan(
            kind="pause",
            revision=1,
            deadline_s=deadline_s,
            steps=(Pause(bench),),
            witness=witness,
            on_settle=settling.pause,
        ),
        Plan(
            kind="resume",
            revision=1,
            deadline_s=deadline_s,
            steps=(Resume(bench),),
            witness=witness,
            on_settle=settling.resume,
        ),
        Plan(
            kind="reset",
            revision=1,
            deadline_s=deadline_s,
            steps=(Reset(bench),),
            witness=witness,
            on_settle=settling.reset,
        ),
        Plan(
            kind="update",
            revision=1,
            deadline_s=deadline_s,
            steps=(ResizeMachine(bench),),
            witness=witness,
            on_settle=settling.update,
        ),
        Plan(
            kind="delete",
            revision=1,
            deadline_s=deadline_s,
            steps=(BeginRemoval(), RemoveMachine(bench), UnpinImage(bench)),
            point_of_no_return=BeginRemoval.name,
            witness=witness,
            on_settle=settling.delete,
        ),
        Plan(
            kind="import",
            revision=1,
            deadline_s=deadline_s,
            steps=(PinWhatIsThere(bench), ClaimMachine(bench), LookAtMachine(bench)),
            quiesce=quiet,
            on_settle=settling.imported,
        ),
        Plan(
            kind=IMPORT_IMAGE,
            revision=1,
            deadline_s=deadline_s,
            steps=(FetchImage(bench),),
            on_settle=image_imported,
        ),
        Plan(
            kind="discard",
            revision=1,
            deadline_s=deadline_s,
            steps=(BeginRemoval(), RemoveMachine(bench), UnpinImage(bench)),
            point_of_no_return=BeginRemoval.name,
        ),
        *(
            Plan(
                kind=kind.value,
                revision=2,
                deadline_s=_OBSERVE_DEADLINE_S,
                steps=(LookAgain(bench), EndRemains(bench)),
                on_settle=settling.observe,
            )
            for kind in Observation
        ),
    ]
