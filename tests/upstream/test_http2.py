"""HTTP/2 towards the bank: chosen by ALPN, shared, bounded, and every way in which the bank can end it."""

from random import Random

import pytest
import trio
from hpack import Encoder

from hub.model.fault import Fault
from hub.protocol.h2_output import frame
from hub.upstream.bank import BankAnswer, BankStreamBroken
from hub.upstream.faults import was_sent
from tests.protocol.h2_frames import DATA, GOAWAY, HEADERS, PING, PUSH, RST, SETTINGS, WINDOW
from tests.upstream.h2_bank import bank2, plainly, serving
from tests.upstream.scripted import connections, get, limits, post

REFUSED_STREAM = 7
FAST = 500


async def test_calls_share_one_connection_and_carry_what_they_should(tmp_path):
    async with bank2(plainly, tmp_path) as (peer, hub):
        answers = []

        async def one(number):
            answers.append(await hub.exchange(get(f"/a/{number}", query="x=1", deadline_ms=5000)))

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(one, number)
        done = await hub.exchange(post(b"[1]"))
        assert isinstance(done, BankAnswer)
        assert (hub.busy, peer.connections) == (0, 1)
        assert {(a.status, a.body) for a in answers} == {(200, b"{}")}
        frames = peer.frames[0]
        paths = {fields[":path"] for _, fields in frames.requests[:40]}
        assert paths == {f"/a/{number}?x=1" for number in range(40)}
        stream, last = frames.requests[-1]
        assert frames.bodies[stream] == b"[1]"
        assert last[":authority"] == f"localhost:{peer.port}"
        assert (last[":scheme"], last["content-length"]) == ("https", "3")


async def test_requests_for_the_same_thing_differ_in_what_is_of_each_alone_and_in_nothing_else(
    tmp_path,
):
    def asked(number, consent="c-1"):
        own = f"id-{number}".encode()
        return get(
            "/accounts/1/balances",
            headers=(
                (b"o3-consent-id", consent.encode()),
                (b"o3-ozone-interaction-id", own),
                (b"o3-caller-interaction-id", own),
            ),
        )

    async with bank2(plainly, tmp_path) as (peer, hub):
        for call in (asked(1), asked(2), asked(3, "c-2"), asked(4), get("/accounts/1/balances")):
            assert isinstance(await hub.exchange(call), BankAnswer)
        told = [fields for _, fields in peer.frames[0].requests]
    names = ("o3-consent-id", "o3-ozone-interaction-id", "o3-caller-interaction-id")
    assert [tuple(fields.get(name) for name in names) for fields in told] == [
        ("c-1", "id-1", "id-1"),
        ("c-1", "id-2", "id-2"),
        ("c-2", "id-3", "id-3"),
        ("c-1", "id-4", "id-4"),
        (None, None, None),
    ]
    common = [{n: v for n, v in fields.items() if n not in names} for fields in told]
    assert common[1:] == common[:-1]
    assert common[0]["accept"] == "application/json"


async def test_a_bank_that_speaks_http_1_1_only_is_spoken_to_so(tmp_path):
    async with bank2(plainly, tmp_path, alpn=("http/1.1",)) as (peer, hub):
        for _ in range(5):
            answer = await hub.exchange(get())
            assert answer.body == b"old"
        assert peer.connections == 1


async def test_without_the_setting_http_2_is_not_offered(tmp_path):
    async with bank2(plainly, tmp_path) as (peer, _):
        hub = connections(tmp_path, peer.port)
        assert (await hub.exchange(get())).body == b"old"
        hub.close()


async def test_goaway_in_the_middle_of_a_stream_lets_it_finish_and_sends_the_rest_elsewhere(
    tmp_path,
):
    asked = trio.Event()

    async def script(frames):
        await frames.begin()
        if frames.number > 1:
            await serving(frames)
        first = await frames.request()
        asked.set()
        second = await frames.request()
        await frames.goaway(first)
        await frames.answer(first, b"first")
        assert second > first
        await trio.sleep_forever()

    async with bank2(script, tmp_path) as (peer, hub):
        answers = {}

        async def one(name, call):
            answers[name] = await hub.exchange(call)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, "get", get())
            await asked.wait()
            nursery.start_soon(one, "pay", post())
        assert answers["get"].body == b"first"
        assert isinstance(answers["pay"], BankAnswer), "provably not processed: sent once more"
        assert peer.connections == 2


async def test_goaway_that_covers_a_stream_which_then_breaks_is_never_sent_again(tmp_path):
    async def script(frames):
        await frames.begin()
        stream = await frames.request()
        await frames.goaway(stream)
        frames.line.reset()

    async with bank2(script, tmp_path) as (peer, hub):
        fault = await hub.exchange(post())
        assert isinstance(fault, Fault)
        assert (fault.check, was_sent(fault), peer.connections) == ("bank.reset", True, 1)


async def test_a_refused_stream_is_sent_once_more_even_a_payment_and_then_given_up(tmp_path):
    async def script(frames):
        await frames.begin()
        while True:
            stream = await frames.request()
            await frames.line.say(frame(RST, 0, stream, REFUSED_STREAM.to_bytes(4)))

    async with bank2(script, tmp_path) as (peer, hub):
        fault = await hub.exchange(post())
        assert (fault.check, was_sent(fault)) == ("bank.reset", False)
        assert sum(len(frames.requests) for frames in peer.frames) == 2


async def test_a_reset_of_another_kind_is_never_repeated_for_a_payment(tmp_path):
    async def script(frames):
        await frames.begin()
        await frames.answer(await frames.request())
        while True:
            stream = await frames.request()
            await frames.line.say(frame(RST, 0, stream, (2).to_bytes(4)))

    async with bank2(script, tmp_path) as (peer, hub):
        assert isinstance(await hub.exchange(post()), BankAnswer)
        fault = await hub.exchange(post())
        assert (fault.check, was_sent(fault)) == ("bank.reset", True)
        assert sum(len(frames.requests) for frames in peer.frames) == 2


async def test_a_bank_that_takes_one_stream_and_says_so_late_costs_connections_and_no_answers(
    tmp_path,
):
    calls, came, all_came = 6, [], trio.Event()

    async def script(frames):
        await frames.preface()
        first = await frames.request(late=True)
        more = calls - 1 if frames is peer.frames[0] else 0
        refused = [await frames.request(late=True) for _ in range(more)]
        await frames.settings(b"\0\3" + (1).to_bytes(4))
        for stream in refused:
            await frames.line.say(frame(RST, 0, stream, (7).to_bytes(4)))
        came.append(first)
        if len(came) == calls:
            all_came.set()
        await all_came.wait()
        await frames.answer(first)
        while True:
            await frames.line.say(frame(RST, 0, await frames.request(), (7).to_bytes(4)))

    async with bank2(script, tmp_path) as (peer, hub):
        answers = []

        async def one():
            answers.append(await hub.exchange(post(deadline_ms=5000)))

        async with trio.open_nursery() as nursery:
            for _ in range(calls):
                nursery.start_soon(one)
        assert [getattr(answer, "status", answer) for answer in answers] == [200] * calls
        assert peer.connections == calls


async def test_a_late_answer_costs_its_own_caller_only(tmp_path):
    async def script(frames):
        await frames.begin()
        while True:
            stream = await frames.request()
            if frames.requests[-1][1][":path"] != "/hang":
                await frames.answer(stream)

    async with bank2(script, tmp_path) as (peer, hub):
        results = []

        async def hang():
            began = trio.current_time()
            fault = await hub.exchange(get("/hang", deadline_ms=FAST))
            results.append((fault.check, trio.current_time() - began))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hang)
            nursery.start_soon(hang)
            for _ in range(20):
                assert isinstance(await hub.exchange(get()), BankAnswer)
        assert [check for check, _ in results] == ["bank.timeout"] * 2
        assert all(took < FAST / 1000 + 0.05 for _, took in results)
        assert isinstance(await hub.exchange(get()), BankAnswer)
        assert peer.connections == 1
        assert [code for _, code in peer.frames[0].resets] == [8, 8]


async def test_a_connection_that_was_silent_until_the_deadline_is_not_used_again(tmp_path):
    async def script(frames):
        await frames.begin()
        await frames.answer(await frames.request())
        if frames.number == peer.frames[0].number:
            await trio.sleep_forever()
        await frames.answer(await frames.request())

    async with bank2(script, tmp_path) as (peer, hub):
        assert isinstance(await hub.exchange(get()), BankAnswer)
        assert (await hub.exchange(post(deadline_ms=FAST))).check == "bank.timeout"
        assert isinstance(await hub.exchange(post()), BankAnswer)
        assert peer.connections == 2


async def broken(frames, octets):
    await frames.begin()
    stream = await frames.request()
    head = frame(
        HEADERS, 4, stream, Encoder().encode([(":status", "200"), ("content-length", "9")])
    )
    await frames.line.say(octets(stream, head))
    await serving(frames)


NONSENSE = {
    "a frame beyond the bound": lambda s, h: (20_000).to_bytes(3) + b"\0\0" + s.to_bytes(4),
    "headers that are no HPACK": lambda s, h: frame(HEADERS, 5, s, b"\xff\xff\xff\xff\xff\xff\xff"),
    "no status": lambda s, h: frame(HEADERS, 5, s, Encoder().encode([("a", "b")])),
    "a status of a thousand": lambda s, h: frame(
        HEADERS, 5, s, Encoder().encode([(":status", "999")])
    ),
    "less than announced": lambda s, h: h + frame(DATA, 1, s, b"short"),
    "data before headers": lambda s, h: frame(DATA, 1, s, b"x"),
    "a push": lambda s, h: frame(
        PUSH, 4, s, (2).to_bytes(4) + Encoder().encode([(":method", "GET")])
    ),
    "a flood of pings": lambda s, h: frame(PING, 0, 0, bytes(8)) * 1100,
    "a flood of settings": lambda s, h: frame(SETTINGS, 0, 0, b"") * 1100,
    "a flood of empty data": lambda s, h: h + frame(DATA, 0, s, b"") * 1100,
    "a header list beyond the bound": lambda s, h: frame(
        HEADERS, 5, s, Encoder().encode([(":status", "200"), *[("x", "y" * 3000)] * 30])[:16384]
    ),
    "HTTP/1.1": lambda s, h: b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    "a short GOAWAY": lambda s, h: frame(GOAWAY, 0, 0, b"\0"),
}


@pytest.mark.parametrize("name", NONSENSE)
async def test_nonsense_is_one_fault_and_the_next_call_goes_on(name, tmp_path):
    async def script(frames):
        if frames.number == 1:
            await broken(frames, NONSENSE[name])
        await plainly(frames)

    async with bank2(script, tmp_path) as (_, hub):
        fault = await hub.exchange(post(deadline_ms=3000))
        assert isinstance(fault, Fault)
        assert (fault.check, was_sent(fault)) == ("bank.malformed", True)
        assert isinstance(await hub.exchange(get()), BankAnswer)


async def test_a_get_whose_used_connection_ended_is_sent_once_more(tmp_path):
    async def script(frames):
        await frames.begin()
        await frames.answer(await frames.request())
        if frames.number == 1:
            await frames.request()
            frames.line.reset()
        await serving(frames)

    async with bank2(script, tmp_path) as (peer, hub):
        assert isinstance(await hub.exchange(get()), BankAnswer)
        assert isinstance(await hub.exchange(get()), BankAnswer)
        assert peer.connections == 2


async def test_streams_never_exceed_what_the_bank_allows(tmp_path):
    most = []

    async def script(frames):
        await frames.begin(b"\0\3" + (3).to_bytes(4))
        await frames.answer(await frames.request())
        while True:
            streams = [await frames.request()]
            with trio.move_on_after(0.1):
                while True:
                    streams.append(await frames.request())
            if frames.number == 1:  # of another one the Hub may not know yet what it allows
                most.append(len(streams))
            for stream in streams:
                await frames.answer(stream)

    results = []
    async with bank2(script, tmp_path) as (peer, hub):
        await hub.exchange(get())

        async def one():
            results.append((await hub.exchange(get(deadline_ms=5000))).status)

        async with trio.open_nursery() as nursery:
            for _ in range(9):
                nursery.start_soon(one)
        assert results == [200] * 9
        assert max(most) == 3
        assert peer.connections <= 4


async def test_a_long_answer_streams_with_the_window_as_it_is_taken(tmp_path):
    async def script(frames):
        await frames.begin()
        await frames.answer(await frames.request(), bytes(900_000))
        await serving(frames)

    async with bank2(script, tmp_path) as (peer, hub):
        answer = await hub.exchange(get(stream_answer=True))
        assert answer.stream is not None
        assert hub.busy == 1
        assert sum([len(piece) async for piece in answer.stream]) == 900_000
        assert hub.busy == 0
        assert isinstance(await hub.exchange(get()), BankAnswer)
        assert peer.connections == 1


async def test_a_streamed_answer_that_breaks_off_says_so(tmp_path):
    async def script(frames):
        await frames.begin()
        stream = await frames.request()
        await frames.line.say(frame(HEADERS, 4, stream, Encoder().encode([(":status", "200")])))
        for _ in range(6):
            await frames.line.say(frame(DATA, 0, stream, bytes(16384)))
        frames.line.reset()

    async with bank2(script, tmp_path) as (_, hub):
        answer = await hub.exchange(get(stream_answer=True))
        if isinstance(answer, Fault):
            assert answer.check == "bank.reset"
        else:
            with pytest.raises(BankStreamBroken):
                async for _ in answer.stream:
                    pass
        assert hub.busy == 0


async def test_an_answer_beyond_the_bound_is_refused_and_its_stream_reset(tmp_path):
    async def script(frames):
        await frames.begin()
        await frames.answer(await frames.request(), bytes(200_000))
        await serving(frames)

    async with bank2(script, tmp_path, bounds=limits(bank_answer_octets=100_000)) as (peer, hub):
        fault = await hub.exchange(get())
        assert fault.check == "bank.malformed"
        assert isinstance(await hub.exchange(get()), BankAnswer)
        assert peer.connections == 1


async def test_a_long_body_goes_as_the_windows_allow(tmp_path):
    async def script(frames):
        await frames.begin(b"\0\4" + (1000).to_bytes(4))
        while True:
            kind, flags, stream, payload = await frames.frame()
            if kind == HEADERS:
                frames.bodies[stream] = b""
            if kind == DATA:
                assert len(payload) <= 65_535
                frames.bodies[stream] += payload
                credit = len(payload).to_bytes(4)
                if payload:
                    await frames.line.say(
                        frame(WINDOW, 0, stream, credit) + frame(WINDOW, 0, 0, credit)
                    )
                if flags & 1:
                    await frames.answer(stream)

    async with bank2(script, tmp_path) as (peer, hub):
        body = Random(1).randbytes(50_000)
        assert isinstance(await hub.exchange(post(body, deadline_ms=8000)), BankAnswer)
        assert body in peer.frames[0].bodies.values()


async def test_an_upload_in_pieces_arrives_whole(tmp_path):
    async def pieces():
        for number in range(10):
            yield bytes([number]) * 20_000

    async with bank2(plainly, tmp_path) as (peer, hub):
        # The bank's window is 65,535 octets and this peer never opens it: less than that arrives whole.
        async def few():
            async for piece in pieces():
                yield piece[:5_000]

        assert isinstance(await hub.exchange(post(b"", stream=few())), BankAnswer)
        assert len(peer.frames[0].bodies[1]) == 50_000


async def test_a_cancelled_caller_resets_its_stream_and_harms_no_other(tmp_path):
    holding = trio.Event()

    async def script(frames):
        await frames.begin()
        held = await frames.request()
        holding.set()
        while True:
            stream = await frames.request()
            await frames.answer(stream)
            assert stream != held

    async with bank2(script, tmp_path) as (peer, hub):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.exchange, get("/held"))
            await holding.wait()
            nursery.cancel_scope.cancel()
        assert hub.busy == 0
        for _ in range(3):
            assert isinstance(await hub.exchange(get()), BankAnswer)
        assert peer.connections == 1
        assert peer.frames[0].resets == [(1, 8)]


async def test_the_breaker_opens_and_a_probe_closes_it(tmp_path, mock_clock):
    good = False

    async def script(frames):
        await frames.begin()
        while True:
            stream = await frames.request()
            if good:
                await frames.answer(stream)
            else:
                await frames.line.say(frame(RST, 0, stream, (2).to_bytes(4)))

    bounds = limits(bank_failures=3, bank_open_s=0.2)
    async with bank2(script, tmp_path, bounds=bounds) as (peer, hub):
        for _ in range(3):
            assert (await hub.exchange(post())).check == "bank.reset"
        before = sum(len(f.requests) for f in peer.frames)
        assert (await hub.exchange(get())).check == "bank.circuit_open"
        assert sum(len(f.requests) for f in peer.frames) == before
        good = True
        mock_clock.jump(0.25)
        assert (await hub.exchange(get())).status == 200
