"""The listener under attack, over real sockets: deadlines, floods, uploads nobody reads; a probe is served meanwhile."""

# ruff: noqa: SIM117 - a client inside its listener reads better nested

import ssl
from contextlib import suppress

import h2.exceptions
import pytest
import trio

from hub.edge.router import Router
from hub.model.http import Admission, Request, Response
from hub.protocol.h2_output import frame
from tests.edge import rig
from tests.protocol.h2_frames import (
    DATA,
    GET,
    GREETING,
    HEADERS,
    PING,
    PRIORITY,
    RST,
    SETTINGS,
    headers,
)
from tests.waiting import until


@pytest.fixture(params=rig.ENGINES)
def engine(request):
    return request.param


async def attacker(place: rig.Place) -> trio.SSLStream:
    return await rig.tls_stream(place.port, rig.client_context("h2"))


async def probe(place: rig.Place) -> None:
    async with rig.h2_client(place) as client:
        with trio.fail_after(5):
            assert (await client.answer(await client.open()))[0] == 200


async def attack(place: rig.Place, octets: bytes) -> list[bytes]:
    """Send, and return the frames that come back until the server closes."""
    stream = await attacker(place)

    async def send() -> None:
        try:
            await stream.send_all(GREETING + octets)
        except (trio.BrokenResourceError, ssl.SSLError):
            return

    found = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        reader = rig.Frames(stream)
        with trio.fail_after(10):
            while got := await reader.next():
                found.append(got)
        nursery.cancel_scope.cancel()
    await trio.aclose_forcefully(stream)
    return found


FLOODS = {
    "priority": b"".join(frame(PRIORITY, 0, 2 * n + 1, bytes(5)) for n in range(20_000)),
    "ping": frame(PING, 0, 0, bytes(8)) * 20_000,
    "settings": frame(SETTINGS, 0, 0, b"") * 20_000,
    "rapid reset": b"".join(
        headers(2 * n + 1) + frame(RST, 0, 2 * n + 1, b"\0\0\0\x08") for n in range(5_000)
    ),
    "oversize": (2**24 - 1).to_bytes(3) + bytes(6) + bytes(100_000),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_flood_ends_its_own_connection_and_no_other(engine, name):
    async with rig.listening(rig.echo_router(), engine=engine) as place:
        async with rig.h2_client(place) as innocent:
            found = await attack(place, FLOODS[name])
            assert [f for f in found if f[3] == 7]
            assert (await innocent.answer(await innocent.open()))[0] == 200
        await probe(place)
    assert place.notebook.reasons("connection_refused")
    assert not place.notebook.reasons("connection_failed")


async def test_attacker_that_never_reads_is_cut_off(engine):
    async with rig.listening(
        rig.echo_router(), engine=engine, send_s=0.2, control_frames=10**9
    ) as place:
        stream = await attacker(place)

        async def send() -> None:
            await stream.send_all(GREETING)
            while True:
                await stream.send_all(frame(PING, 0, 0, bytes(8)) * 5000)

        with pytest.raises((trio.BrokenResourceError, ssl.SSLError)), trio.fail_after(20):
            await send()
        await trio.aclose_forcefully(stream)
        await probe(place)
    assert "socket" in place.notebook.reasons("slow_reader")


async def test_upload_nobody_reads_stops_at_its_window_and_blocks_no_other_stream(engine):
    never = trio.Event()

    async def ignore(request: Request) -> Response:
        await never.wait()
        return Response(status=200)

    app = Router(
        {("POST", "/ignored"): ignore, ("GET", "/"): rig.echo},
        admissions={("POST", "/ignored"): Admission(limit=10_000_000, stream=True)},
    )
    async with rig.listening(app, engine=engine) as place, rig.h2_client(place) as client:
        number = await client.open("POST", "/ignored", end=False)
        sent = 0
        while room := min(16384, client.h2.local_flow_control_window(number)):
            client.h2.send_data(number, bytes(room))
            sent += room
        await client.flush()
        assert sent == 65535
        assert (await client.answer(await client.open()))[0] == 200
        assert client.h2.local_flow_control_window(number) == 0
        never.set()
        await client.answer(number)


async def test_slow_reader_of_an_answer_loses_its_stream_only(engine):
    async def large(request: Request) -> Response:
        return Response(status=200, body=bytes(200_000))

    app = Router({("GET", "/large"): large, ("GET", "/"): rig.echo})
    async with rig.listening(app, engine=engine, send_s=0.2) as place:
        stream = await attacker(place)
        small = frame(SETTINGS, 0, 0, (4).to_bytes(2) + (1).to_bytes(4))
        large_get = (
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", b"h"),
            (b":path", b"/large"),
        )
        await stream.send_all(GREETING + small + headers(1, base=large_get))
        reader = rig.Frames(stream)
        reset = await reader.until(RST)
        assert int.from_bytes(reset[5:9]) == 1
        await stream.send_all(
            frame(SETTINGS, 0, 0, (4).to_bytes(2) + (65535).to_bytes(4)) + headers(3)
        )
        assert (await reader.until(HEADERS))[5:9] == (3).to_bytes(4)
        await trio.aclose_forcefully(stream)
    assert place.notebook.reasons("slow_reader") == ["send_s"]


async def test_answers_that_wait_for_their_readers_are_bounded_together(engine):
    async def large(request: Request) -> Response:
        return Response(status=200, body=bytes(100_000))

    app = Router({("GET", "/large"): large, ("GET", "/"): rig.echo})
    large_get = (*GET[:3], (b":path", b"/large"))
    async with rig.listening(app, engine=engine, bodies_octets=350_000) as place:
        stream = await attacker(place)
        none = frame(SETTINGS, 0, 0, (4).to_bytes(2) + bytes(4))
        asks = b"".join(headers(number, base=large_get) for number in range(1, 21, 2))
        await stream.send_all(GREETING + none + asks)
        reader = rig.Frames(stream)
        reset = [int.from_bytes((await reader.until(RST))[5:9]) for _ in range(7)]
        assert len(set(reset)) == 7, "three are held, the others are not"
        await probe(place)
        await trio.aclose_forcefully(stream)
        async with rig.h2_client(place) as client:
            assert len((await client.answer(await client.open("GET", "/large")))[2]) == 100_000
    assert set(place.notebook.reasons("slow_reader")) == {"bodies_octets"}


async def test_slow_reader_does_not_hold_up_the_end(engine):
    async def endless(request: Request) -> Response:
        async def pieces():
            while True:
                yield bytes(65536)

        return Response(status=200, stream=pieces())

    async with rig.listening(Router({("GET", "/"): endless}), engine=engine, drain_s=0.3) as place:
        stream = await attacker(place)
        await stream.send_all(GREETING + headers(1))
        await rig.Frames(stream).until(DATA)
        place.drain.start()
        assert await rig.read_all(stream) is not None
        await trio.aclose_forcefully(stream)


@pytest.mark.parametrize("octets", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: h\r\nX: "])
async def test_slowloris_is_closed_when_the_head_is_late(octets):
    async with rig.listening(rig.echo_router(), tls=False, header_s=0.2) as place:
        assert await rig.http1(place.port, octets) == b""


@pytest.mark.parametrize(
    "octets",
    [
        b"", GREETING[:10], GREETING[:24], GREETING + frame(HEADERS, 1, 1, b"\x82"), GREETING + headers(1)[:-1],
        GREETING + headers(1) + headers(3)[:12],
    ],
)  # fmt: skip
async def test_slow_http2_beginning_is_closed_when_it_is_late(engine, octets):
    async with rig.listening(rig.echo_router(), engine=engine, header_s=0.2) as place:
        stream = await attacker(place)
        await stream.send_all(octets)
        await rig.read_all(stream)
        await trio.aclose_forcefully(stream)
    assert place.notebook.reasons("connection_refused") == ["header_s"]


async def test_handshake_that_never_comes_is_closed_and_noted():
    async with rig.listening(rig.echo_router(), handshake_s=0.2) as place:
        async with await trio.open_tcp_stream("127.0.0.1", place.port) as stream:
            await stream.send_all(b"\x16\x03\x01")
            await rig.read_all(stream)
    assert place.notebook.reasons("handshake_refused") == ["handshake_s"]


async def test_slow_hellos_hold_no_turn_that_a_newcomer_needs():
    async with rig.listening(rig.echo_router(), handshakes=1) as place:
        held = [await trio.open_tcp_stream("127.0.0.1", place.port) for _ in range(20)]
        for stream in held:
            await stream.send_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
        with trio.fail_after(4):  # below handshake_s
            await probe(place)
        for stream in held:
            await trio.aclose_forcefully(stream)


async def test_handshakes_waiting_for_a_slot_do_not_outlive_their_deadline():
    async with rig.listening(rig.echo_router(), handshake_s=1.0, handshakes=1) as place:
        held = [await trio.open_tcp_stream("127.0.0.1", place.port) for _ in range(3)]
        for stream in held:
            await rig.read_all(stream)
            await trio.aclose_forcefully(stream)
        await probe(place)


async def test_body_slower_than_the_least_rate_is_answered_with_408(engine):
    async with rig.listening(rig.echo_router(), engine=engine, header_s=1.0) as place:
        async with rig.h2_client(place) as client:
            number = await client.open("POST", "/", end=False)
            assert (await client.answer(number))[0] == 408


async def test_idle_connection_is_closed_with_goaway_and_no_error(engine):
    async with rig.listening(rig.echo_router(), engine=engine, idle_s=0.2) as place:
        stream = await attacker(place)
        await stream.send_all(GREETING + headers(1))
        reader = rig.Frames(stream)
        goaway = await reader.until(7)
        assert goaway[9:17] == (1).to_bytes(4) + bytes(4)
        assert await reader.next() == b""
        await trio.aclose_forcefully(stream)


async def test_late_handler_is_answered_for_with_503(engine):
    async def stuck(request: Request) -> Response:
        await trio.sleep_forever()
        raise AssertionError

    async with rig.listening(Router({("GET", "/"): stuck}), engine=engine, request_s=0.2) as place:
        async with rig.h2_client(place) as client:
            assert (await client.answer(await client.open()))[0] == 503


async def test_refused_http1_request_is_answered_and_its_connection_closed():
    async with rig.listening(rig.echo_router(), tls=False) as place:
        got = await rig.http1(
            place.port,
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        )
        assert got.startswith(b"HTTP/1.1 400 ")
        assert got.count(b"HTTP/1.1") == 1
    assert place.notebook.reasons("request_refused") == ["grammar"]


async def test_garbage_instead_of_tls_is_refused_and_noted():
    async with rig.listening(rig.echo_router()) as place:
        await rig.http1(place.port, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await probe(place)
    assert place.notebook.reasons("handshake_refused") == ["http_request"]


@pytest.mark.parametrize("secure", [True, False])
async def test_endless_answer_is_held_back_by_a_peer_that_does_not_read(secure):
    made = 0

    async def endless(request: Request) -> Response:
        async def pieces():
            nonlocal made
            while True:
                made += 65536
                yield bytes(65536)

        return Response(status=200, stream=pieces())

    request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    async with rig.listening(Router({("GET", "/"): endless}), tls=secure, send_s=0.3) as place:
        if secure:
            stream = await rig.tls_stream(place.port, rig.client_context("http/1.1"))
        else:
            stream = await trio.open_tcp_stream("127.0.0.1", place.port)
        await stream.send_all(request)
        await until(lambda: place.notebook.reasons("slow_reader"), 10, "the slow reader's end")
        await trio.aclose_forcefully(stream)
    assert made < 16_000_000


async def test_requests_beyond_what_is_answered_at_once_are_told_to_come_again(engine):
    waiting, go_on = 0, trio.Event()

    async def wait(request: Request) -> Response:
        nonlocal waiting
        waiting += 1
        await go_on.wait()
        return Response(status=200)

    app = Router({("GET", "/wait"): wait, ("POST", "/wait"): wait, ("GET", "/"): rig.echo})
    async with rig.listening(app, engine=engine, requests=8) as place:
        async with rig.h2_client(place) as client, rig.h2_client(place) as other:
            held = [await client.open("GET", "/wait") for _ in range(8)]
            shed = [await client.open("GET", "/wait") for _ in range(20)]
            shed += [await client.open("POST", "/wait", end=False)]
            for number in shed:
                status, fields, _ = await client.answer(number)
                assert (status, fields[b"retry-after"]) == (503, b"1")
            assert (await other.answer(await other.open()))[0] == 503, "whoever asks"
            assert waiting == 8
            go_on.set()
            assert [(await client.answer(number))[0] for number in held] == [200] * 8
            assert (await other.answer(await other.open()))[0] == 200, "room again at once"
    assert not place.notebook.reasons("stream_failed")


async def test_bodies_that_do_not_come_take_no_place_of_a_request_that_can_be_answered(engine):
    async with rig.listening(rig.echo_router(), engine=engine, requests=8) as place:
        async with rig.h2_client(place) as slow, rig.h2_client(place) as other:
            held = [await slow.open("POST", "/", end=False) for _ in range(8)]
            assert (await slow.answer(await slow.open()))[0] == 200
            for _ in range(3):
                assert (await other.answer(await other.open()))[0] == 200
            for number in held:
                with suppress(h2.exceptions.StreamClosedError):  # the one that gave way
                    slow.h2.send_data(number, b"late", end_stream=True)
            await slow.flush()
            answers = [await slow.answer(number) for number in held]
            assert sorted(status for status, _, _ in answers) == [200] * 7 + [503]
            assert [f[b"retry-after"] for status, f, _ in answers if status == 503] == [b"1"]
    assert not place.notebook.reasons("stream_failed")


async def test_answers_that_nobody_reads_take_no_place_of_a_request_that_can_be_answered(engine):
    async with rig.listening(rig.echo_router(), engine=engine, requests=8) as place:
        slow = await attacker(place)
        window = frame(SETTINGS, 0, 0, b"\0\4" + bytes(4))
        await slow.send_all(GREETING + window + b"".join(headers(n) for n in range(1, 17, 2)))
        reader = rig.Frames(slow)
        for _ in range(8):
            assert await reader.until(HEADERS)
        async with rig.h2_client(place) as other:
            for _ in range(9):
                assert (await other.answer(await other.open()))[0] == 200
        assert await reader.until(RST), "one of them gave way"
        await trio.aclose_forcefully(slow)
    assert "crowded" in place.notebook.reasons("slow_reader")
    assert not place.notebook.reasons("stream_failed")


async def test_answers_that_fit_the_window_but_not_the_socket_are_bounded_together(engine):
    made = 0

    async def large(request: Request) -> Response:
        nonlocal made
        made += 1
        return Response(status=200, body=bytes(200_000))

    app = Router({("GET", "/"): large, ("GET", "/small"): rig.echo})
    wide = frame(SETTINGS, 0, 0, b"\0\4\x7f\xff\xff\xff") + frame(8, 0, 0, b"\x7f\xfe\0\0")
    async with rig.listening(app, engine=engine, bodies_octets=1_000_000) as place:
        stream = await attacker(place)
        await stream.send_all(GREETING + wide + b"".join(headers(n) for n in range(1, 201, 2)))
        await until(lambda: place.notebook.reasons("slow_reader"), 10, "its end")
        assert set(place.notebook.reasons("slow_reader")) == {"bodies_octets"}
        async with rig.h2_client(place) as client:
            assert (await client.answer(await client.open("GET", "/small")))[0] == 200
        await trio.aclose_forcefully(stream)
    assert 5 < made <= 100, "whose caller is gone before its turn is not made"
    assert not place.notebook.reasons("stream_failed")
