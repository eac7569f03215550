"""What is asked of guests: handed on where the instance's state allows it."""

from collections.abc import AsyncIterator
from datetime import UTC, timedelta

import grpc
import pytest
from controller_fakes import Cloud, pointers_of, reason_of, refusal
from controller_guest_fakes import FROZEN_AT
from qcontroller.controller.v1 import instance_pb2 as pb


async def refused(cloud: Cloud) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.instances.GetGuest(pb.GetGuestRequest(name="web-1"), timeout=10)
    return reason_of(caught.value)[0]


async def with_agent(cloud: Cloud) -> pb.Instance:
    """Launch an instance whose agent answers."""
    instance = await cloud.launch()
    cloud.runner.report(instance.id, agent_connected=True)
    wait = pb.WaitInstanceRequest(name="web-1", condition="AgentConnected", timeout="10")
    answer: pb.WaitInstanceResponse = await cloud.instances.WaitInstance(wait, timeout=10)
    return answer.instance


async def test_a_report_comes_as_the_runner_sent_it(cloud: Cloud) -> None:
    instance = await with_agent(cloud)
    answer = await cloud.instances.GetGuest(pb.GetGuestRequest(name="web-1"), timeout=10)
    assert (answer.guest.hostname, answer.guest.agent_version) == (instance.id, "7.2")


async def test_a_guest_that_does_not_run_is_not_asked(cloud: Cloud) -> None:
    assert await refused(cloud) == "INSTANCE_NOT_FOUND"
    await cloud.launch(start=False)
    assert await refused(cloud) == "INSTANCE_STATE_CONFLICT"


async def test_a_guest_whose_agent_has_gone_is_told_by_the_instances_name(cloud: Cloud) -> None:
    await with_agent(cloud)
    cloud.runner.faults["read_guest"] = [refusal("GUEST_AGENT_UNAVAILABLE")]
    assert await refused(cloud) == "GUEST_AGENT_UNAVAILABLE"


async def parts(*messages: pb.PushFileRequest) -> AsyncIterator[pb.PushFileRequest]:
    for message in messages:
        yield message


def head(path: str = "/etc/motd") -> pb.PushFileRequest:
    return pb.PushFileRequest(push=pb.FilePush(name="web-1", path=path, mode="0600", owner="root"))


async def test_a_programs_output_is_told_part_by_part(cloud: Cloud) -> None:
    await with_agent(cloud)
    request = pb.StreamExecRequest(name="web-1", argv=["echo", "a"], stdin=b"in")
    seen = [part async for part in cloud.instances.StreamExec(request, timeout=10)]
    assert [part.WhichOneof("part") for part in seen] == [None, "stdout", "stderr", "end"]
    assert (seen[1].stdout, seen[2].stderr, seen[3].end.exit_code) == (b"echo a", b"in", 3)


async def test_a_stream_is_refused_as_the_plain_form_is(cloud: Cloud) -> None:
    await with_agent(cloud)
    request = pb.StreamExecRequest(name="web-1", argv=["a\0"], env={"A=B": ""}, timeout="2h")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in cloud.instances.StreamExec(request, timeout=10):
            pass
    assert pointers_of(caught.value) == {"/argv/0", "/env/A=B", "/timeout"}


async def test_a_file_goes_in_and_comes_out(cloud: Cloud) -> None:
    await with_agent(cloud)
    messages = parts(
        head(),
        pb.PushFileRequest(chunk=b"hel"),
        pb.PushFileRequest(chunk=b"lo"),
        pb.PushFileRequest(end=pb.FileEnd(total_bytes=5)),
    )
    answer = await cloud.instances.PushFile(messages, timeout=10)
    assert (answer.file.path, answer.file.size_bytes) == ("/etc/motd", 5)
    assert (cloud.runner.guests.wishes[0].mode, cloud.runner.guests.wishes[0].owner) == ("0600", "root")
    request = pb.PullFileRequest(name="web-1", path="/etc/motd")
    pulled = [part async for part in cloud.instances.PullFile(request, timeout=10)]
    assert (pulled[0].file, pulled[1].chunk) == (answer.file, b"hello")


@pytest.mark.parametrize("last", [pb.PushFileRequest(), head(), None])
async def test_a_push_without_its_end_is_not_one(cloud: Cloud, last: pb.PushFileRequest | None) -> None:
    await with_agent(cloud)
    messages = [head(), pb.PushFileRequest(chunk=b"hel"), *([last] if last is not None else [])]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.instances.PushFile(parts(*messages), timeout=10)
    assert reason_of(caught.value)[0] == "UPLOAD_TRUNCATED"
    assert cloud.runner.guests.files == {}


async def test_passwords_and_keys_are_handed_on_and_kept_nowhere(cloud: Cloud) -> None:
    await with_agent(cloud)
    password = pb.SetGuestPasswordRequest(name="web-1", user="root", password="marker-of-a-secret")
    await cloud.instances.SetGuestPassword(password, timeout=10)
    keys = pb.AuthoriseSshKeysRequest(name="web-1", user="root", keys=["ssh-ed25519 A"])
    await cloud.instances.AuthoriseSshKeys(keys, timeout=10)
    assert cloud.runner.guests.passwords == {"root": "marker-of-a-secret"}
    assert cloud.runner.guests.keys == {"root": ["ssh-ed25519 A"]}
    assert "marker-of-a-secret" not in str(await cloud.get())


async def test_a_freeze_has_its_end_from_the_beginning(cloud: Cloud) -> None:
    await with_agent(cloud)
    frozen = await cloud.instances.FreezeGuest(pb.FreezeGuestRequest(name="web-1"), timeout=10)
    assert (frozen.filesystems, frozen.thaw_time.ToDatetime(UTC)) == (2, FROZEN_AT + timedelta(seconds=30))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.instances.FreezeGuest(pb.FreezeGuestRequest(name="web-1", timeout="1h"), timeout=10)
    assert pointers_of(caught.value) == {"/timeout"}
    assert (await cloud.instances.ThawGuest(pb.ThawGuestRequest(name="web-1"), timeout=10)).filesystems == 2
