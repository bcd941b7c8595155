"""What a socket does not take at once."""

import socket

import trio

from hub.edge.transport import PlainTransport

OCTETS = bytes(range(256)) * 16384


async def test_what_is_left_of_a_long_answer_is_not_copied_each_time_its_reader_takes_a_little():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    transport, got = PlainTransport(ours), b""
    with ours, theirs, trio.fail_after(10):
        assert not transport.send_now(OCTETS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.flush)
            while transport.waiting > len(OCTETS) // 2:
                await trio.lowlevel.wait_readable(theirs)
                got += theirs.recv(65536)
                await trio.lowlevel.checkpoint()
            left = transport._unsent
            assert isinstance(left, memoryview)
            assert left.obj is OCTETS
            transport.send_now(b"more")
            while len(got) < len(OCTETS) + 4:
                await trio.lowlevel.wait_readable(theirs)
                got += theirs.recv(65536)
        assert got == OCTETS + b"more"
        assert not transport.stuck
