"""Long bodies both ways: handed over piece by piece, never read ahead, and given back exactly once."""

import pytest
import trio
import trio.testing

from hub.upstream.bank import BankStreamBroken
from tests.upstream.scripted import OK, answering, bank, get, limits, post

LONG = b"x" * 300_000


def long_answer(body=LONG):
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


async def test_a_long_answer_is_streamed_and_its_connection_used_again(tmp_path):
    async with bank(answering(long_answer()), tmp_path) as (peer, hub):
        for _ in range(2):
            answer = await hub.exchange(get(stream_answer=True))
            assert answer.body == b""
            assert hub.busy == 1, "the stream holds its connection"
            assert b"".join([piece async for piece in answer.stream]) == LONG
            assert (hub.busy, hub.idle) == (0, 1)
        assert peer.connections == 1


async def test_a_short_answer_is_complete_though_a_stream_was_asked_for(tmp_path):
    async with bank(answering(OK), tmp_path) as (_, hub):
        answer = await hub.exchange(get(stream_answer=True))
        assert (answer.body, answer.stream) == (b"{}", None)


async def test_a_long_answer_is_complete_if_no_stream_was_asked_for(tmp_path):
    async with bank(answering(long_answer()), tmp_path) as (_, hub):
        assert (await hub.exchange(get())).body == LONG


async def test_a_bank_that_sends_more_than_is_read_has_to_wait(tmp_path):
    sent = 0

    async def script(line):
        nonlocal sent
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\ncontent-length: 15000000\r\n\r\n")
        for _ in range(150):
            await line.say(b"y" * 100_000)
            sent += 100_000

    async with bank(script, tmp_path) as (_, hub):
        answer = await hub.exchange(get(stream_answer=True))
        await trio.testing.wait_all_tasks_blocked()
        assert sent < 14_000_000, "nobody has read it, so it cannot all have been taken"
        total = 0
        async for piece in answer.stream:
            total += len(piece)
        assert total == 15_000_000


async def broken_off(line):
    await line.request()
    await line.say(long_answer()[:200_000])
    line.reset()


async def hanging(line):
    await line.request()
    await line.say(long_answer()[:200_000])
    await trio.sleep_forever()


@pytest.mark.parametrize("script", [broken_off, hanging])
async def test_a_stream_that_breaks_off_says_so_and_frees_its_slot(script, tmp_path):
    async with bank(script, tmp_path) as (_, hub):
        answer = await hub.exchange(get(stream_answer=True, deadline_ms=400))
        with pytest.raises(BankStreamBroken) as raised:
            _ = [piece async for piece in answer.stream]
        assert raised.value.fault.check in {"bank.reset", "bank.malformed", "bank.timeout"}
        assert (hub.busy, hub.idle) == (0, 0)


async def test_a_stream_that_is_given_up_closes_its_connection(tmp_path):
    async with bank(answering(long_answer()), tmp_path) as (_, hub):
        answer = await hub.exchange(get(stream_answer=True))
        await answer.stream.__anext__()
        await answer.stream.aclose()
        await answer.stream.aclose()
        assert (hub.busy, hub.idle) == (0, 0)


async def test_a_stream_that_was_closed_under_its_reader_does_not_pass_for_whole(tmp_path):
    async with bank(answering(long_answer()), tmp_path) as (_, hub):
        answer = await hub.exchange(get(stream_answer=True))
        await answer.stream.__anext__()
        hub.close()
        with pytest.raises(BankStreamBroken) as raised:
            _ = [piece async for piece in answer.stream]
        assert raised.value.fault.check == "bank.timeout"
        assert hub.busy == 0


async def test_a_stream_that_has_ended_stays_ended(tmp_path):
    async with bank(answering(long_answer()), tmp_path) as (_, hub):
        answer = await hub.exchange(get(stream_answer=True))
        assert b"".join([piece async for piece in answer.stream]) == LONG
        assert [piece async for piece in answer.stream] == []


async def pieces(*values):
    for value in values:
        yield value


async def chunked_reader(line):
    head = await line.stream.receive_some(65536)
    while not head.endswith(b"0\r\n\r\n"):
        head += await line.stream.receive_some(65536)
    seen.append(head)
    await line.say(OK)


seen = []


async def test_an_upload_of_unknown_length_goes_in_chunks(tmp_path):
    seen.clear()
    async with bank(chunked_reader, tmp_path) as (_, hub):
        answer = await hub.exchange(post(b"", stream=pieces(b"abc", b"", b"de"), headers=()))
        assert answer.status == 200
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert b"content-length" not in head
    assert body == b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"


async def test_an_upload_of_known_length_is_sent_as_announced(tmp_path):
    got = []

    async def script(line):
        got.append(await line.request())
        await line.say(OK)

    headers = ((b"content-length", b"5"),)
    async with bank(script, tmp_path) as (_, hub):
        call = post(b"", stream=pieces(b"abc", b"de"), headers=headers)
        assert (await hub.exchange(call)).status == 200
        short = post(b"", stream=pieces(b"abc"), headers=headers)
        assert (await hub.exchange(short)).check == "bank.reset"
        long = post(b"", stream=pieces(b"abc", b"defg"), headers=headers)
        assert (await hub.exchange(long)).check == "bank.reset"
    assert got[0].endswith(b"\r\n\r\nabcde")
    assert len(got) == 1, "what is not as long as announced never becomes a request"


async def test_a_bank_that_answers_an_upload_early_is_heard(tmp_path):
    async def script(line):
        await line.stream.receive_some(65536)
        await line.say(b"HTTP/1.1 413 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await line.stream.wait_send_all_might_not_block()
        while await line.stream.receive_some(65536):
            pass

    async def endless():
        while True:
            yield b"z" * 10_000
            await trio.lowlevel.checkpoint()

    async with bank(script, tmp_path) as (_, hub):
        answer = await hub.exchange(post(b"", stream=endless(), headers=(), deadline_ms=5000))
        assert answer.status == 413
        assert hub.idle == 0


async def lingers(line):
    await trio.sleep_forever()


async def says_farewell(line):
    line.stream.transport_stream.socket.shutdown(trio.socket.SHUT_WR)
    await trio.sleep_forever()


@pytest.mark.parametrize("then", [lingers, says_farewell])
@pytest.mark.parametrize("in_pieces", [False, True])
async def test_a_bank_that_refuses_an_upload_and_reads_no_more_is_heard(then, in_pieces, tmp_path):
    async def script(line):
        await line.stream.receive_some(1000)
        await line.say(b"HTTP/1.1 413 X\r\ncontent-length: 0\r\n\r\n")
        await then(line)

    body = b"z" * 8_000_000
    over = {"stream": pieces(body, body), "headers": ()} if in_pieces else {}
    async with bank(script, tmp_path) as (_, hub):
        call = post(b"" if in_pieces else body, deadline_ms=5000, **over)
        assert (await hub.exchange(call)).status == 413
        assert (hub.busy, hub.idle) == (0, 0)


async def test_a_connection_over_which_a_body_went_in_part_is_not_used_again(tmp_path):
    refusal = b"HTTP/1.1 413 X\r\ncontent-length: 0\r\n\r\n"

    async def script(line):
        if line.number > 1:
            await answering(OK)(line)
            return
        await line.stream.receive_some(1000)
        await line.say(refusal)
        while await line.stream.receive_some(65536):
            pass

    async with bank(script, tmp_path) as (peer, hub):
        assert (await hub.exchange(post(b"z" * 8_000_000))).status == 413
        assert hub.idle == 0, "what is sent next would be read as the rest of the body"
        assert (await hub.exchange(post(b"{}"))).status == 200
        assert (await hub.exchange(post(b"z" * 200_000))).status == 200
        assert peer.connections == 2, "a body that went whole leaves its connection for the next"


async def test_an_answer_beyond_the_bound_is_refused(tmp_path):
    bounds = limits(bank_answer_octets=1000)
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"400\r\n" + b"x" * 1024
    async with bank(answering(chunked + b"\r\n0\r\n\r\n"), tmp_path, bounds=bounds) as (_, hub):
        assert (await hub.exchange(get())).check == "bank.malformed"
