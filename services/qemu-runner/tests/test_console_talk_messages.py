"""What a viewer may not ask of a console."""

import pytest
from qcontroller.controller.v1 import console_pb2 as pb
from qemu_runner.console_talk_messages import command_of, wish_of
from qemu_runner.errors import SpecInvalidError


def test_nobody_is_forced_out_of_a_role_that_is_not_asked_for() -> None:
    with pytest.raises(SpecInvalidError):
        wish_of(pb.ConsoleViewer(force=True))
    with pytest.raises(SpecInvalidError):
        command_of(pb.ConsoleCommand(role=pb.ConsoleRoleRequest(take=False, force=True)))


def test_a_command_that_asks_nothing_is_refused() -> None:
    with pytest.raises(SpecInvalidError):
        command_of(pb.ConsoleCommand())
