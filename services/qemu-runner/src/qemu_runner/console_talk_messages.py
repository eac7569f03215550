"""An attached console's talk as the contract's messages."""

from qcontroller.controller.v1 import console_pb2 as pb

from qemu_runner.domain.console_talk import (
    Command,
    End,
    Gap,
    Input,
    InputRefused,
    News,
    Opened,
    Output,
    Resize,
    Resized,
    Role,
    RoleRequest,
    ViewerWish,
)
from qemu_runner.errors import SpecFault, SpecInvalidError
from qemu_runner.guest_messages import time_message


def wish_of(message: pb.ConsoleViewer) -> ViewerWish:
    """Return who wants to see a console, and how.

    Raises:
        SpecInvalidError: It forces what it does not ask for.
    """
    if message.force and not message.write:
        raise SpecInvalidError((SpecFault("/query/force", "needs write."),))
    offset = message.offset if message.HasField("offset") else None
    return ViewerWish(message.label, offset, message.write, message.force)


def command_of(message: pb.ConsoleCommand) -> Command:
    """Return what a viewer asks.

    Raises:
        SpecInvalidError: It asks nothing that is known.
    """
    match message.WhichOneof("part"):
        case "input":
            return Input(message.input)
        case "resize":
            return Resize(message.resize.columns, message.resize.rows)
        case "role":
            if message.role.force and not message.role.take:
                raise SpecInvalidError((SpecFault("/role/force", "needs take."),))
            return RoleRequest(message.role.take, message.role.force)
        case None:
            raise SpecInvalidError((SpecFault("", "a command is input, resize or role."),))


def news_message(news: News) -> pb.ConsoleNews:
    """Return what a viewer is told."""
    match news:
        case Opened(offset=offset, label=label, end_offset=end):
            return pb.ConsoleNews(opened=pb.ConsoleOpened(offset=offset, label=label, end_offset=end))
        case Output(data=data):
            return pb.ConsoleNews(output=data)
        case Gap(begin=begin, end=end):
            return pb.ConsoleNews(gap=pb.ConsoleGap(from_offset=begin, to_offset=end))
        case Role():
            return pb.ConsoleNews(role=_role(news))
        case Resized(size=size, applied=applied, detail=detail):
            return pb.ConsoleNews(
                resized=pb.ConsoleResized(
                    columns=size.columns, rows=size.rows, applied=applied, detail=detail
                )
            )
        case InputRefused(reason=reason, detail=detail):
            return pb.ConsoleNews(input_refused=pb.ConsoleInputRefused(reason=reason, detail=detail))
        case End(reason=reason, detail=detail, offset=offset):
            return pb.ConsoleNews(end=pb.ConsoleEnd(reason=reason, detail=detail, offset=offset))


def _role(role: Role) -> pb.ConsoleRole:
    return pb.ConsoleRole(
        writer=role.writer,
        holder=role.holder,
        since=None if role.since is None else time_message(role.since),
        refused=role.refused,
        lost=role.lost,
    )
