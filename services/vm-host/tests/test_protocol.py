"""Framing: limits and the ownership of descriptors."""

import json
import os
import socket
from collections.abc import Iterator

import pytest
from vm_host import protocol
from vm_host.errors import Refusal, RefusedError
from vm_host.launcher import substitute

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, two:
        yield one, two


def test_a_request_of_the_largest_size_is_read(pair: Pair) -> None:
    empty = json.dumps({"id": 1, "op": "list", "after": ""})
    padded = json.dumps({"id": 1, "op": "list", "after": "x" * (protocol.MAX_MESSAGE_BYTES - len(empty))})
    pair[0].send(padded.encode())
    request_id, operation, body = protocol.decode(protocol.receive(pair[1]))
    assert (request_id, operation, set(body)) == (1, "list", {"after"})


def test_a_larger_one_is_refused(pair: Pair) -> None:
    pair[0].send(b"x" * (protocol.MAX_MESSAGE_BYTES + 1))
    with pytest.raises(RefusedError) as refused:
        protocol.decode(protocol.receive(pair[1]))
    assert refused.value.code is Refusal.MESSAGE_TOO_LARGE


def test_received_descriptors_are_not_inherited_and_closed_once(pair: Pair) -> None:
    socket.send_fds(pair[0], [b"{}"], [0, 1])
    received = protocol.receive(pair[1])
    numbers = list(received.fds)
    assert [os.get_inheritable(number) for number in numbers] == [False, False]
    received.close()
    received.close()
    for number in numbers:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)


def test_the_end_of_the_peer_is_empty_data(pair: Pair) -> None:
    pair[0].close()
    assert protocol.receive(pair[1]) == protocol.Received(b"")


def test_an_answer_over_the_limit_is_a_defect() -> None:
    with pytest.raises(ValueError, match="message of"):
        protocol.result(1, {"text": "x" * protocol.MAX_MESSAGE_BYTES})


def test_names_in_arguments_become_numbers_and_other_braces_stay() -> None:
    arguments = ("fd={fd:a},fd={fd:b-2}", '{"fd": "{fd:a}"}', "{fd}", "{fd:}")
    replaced = substitute(arguments, {"a": 5, "b-2": 17, "stderr": 9})
    assert replaced == ["fd=5,fd=17", '{"fd": "5"}', "{fd}", "{fd:}"]
