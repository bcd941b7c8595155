"""HTTP/2 floods: the mechanism that stops each, on both engines; memory stays bounded while they last."""

import gc
import tracemalloc

import pytest

from hub.protocol.h2_output import Stream, frame
from tests.protocol.h2_frames import (
    CONTINUATION,
    DATA,
    ENGINES,
    GET,
    HEADERS,
    PING,
    POST,
    PRIORITY,
    RST,
    SETTINGS,
    WINDOW,
    Wire,
    block,
    headers,
)

CALM = 11


@pytest.fixture(params=sorted(ENGINES))
def wire(request):
    return Wire(request.param)


def flood(wire: Wire, make, count: int) -> int:
    """Feed frames until the engine gives up; return how many it took. Never more than 100 times what was sent."""
    tracemalloc.start()
    try:
        sent = 0
        for number in range(count):
            octets = make(number)
            sent += len(octets)
            wire.feed(octets)
            if wire.engine.closing:
                break
        assert tracemalloc.get_traced_memory()[1] < max(100 * sent, 1_000_000)
    finally:
        tracemalloc.stop()
    return number


FLOODS = {
    "PRIORITY": lambda n: frame(PRIORITY, 0, 2 * n + 1, bytes(5)),
    "PING": lambda _: frame(PING, 0, 0, bytes(8)),
    "PING acks": lambda _: frame(PING, 1, 0, bytes(8)),
    "SETTINGS": lambda _: frame(SETTINGS, 0, 0, b""),
    "SETTINGS acks": lambda _: frame(SETTINGS, 1, 0, b""),
    "WINDOW_UPDATE": lambda _: frame(WINDOW, 0, 0, b"\0\0\0\1"),
    "unknown frames": lambda _: frame(0x77, 0, 0, b""),
}


@pytest.mark.parametrize("name", FLOODS)
def test_flood_of_control_frames_is_stopped(wire, name):
    taken = flood(wire, FLOODS[name], 2000)
    assert 990 <= taken <= 1010
    assert wire.engine.fault
    assert wire.goaway == CALM or wire.engine.closing


def test_control_frames_at_the_allowed_rate_go_on_for_ever(wire):
    for _ in range(3000):
        wire.now += 0.02
        wire.feed(frame(PING, 0, 0, bytes(8)))
    assert not wire.engine.closing


def test_window_updates_that_answer_our_data_are_free(wire):
    for number in range(1, 6001, 2):
        wire.feed(headers(number))
        wire.engine.answer(number, 200, (), b"x" * 10)
        wire.engine.release(number)
        wire.feed(frame(WINDOW, 0, 0, b"\0\0\0\x0a"))
    assert not wire.engine.closing


def test_flood_of_empty_data_is_stopped(wire):
    wire.feed(headers(1, base=POST, end=False))
    assert flood(wire, lambda _: frame(DATA, 0, 1, b""), 2000) <= 1010
    assert wire.goaway == CALM


def test_flood_of_tiny_data_is_stopped_later(wire):
    wire.feed(headers(1, base=POST, end=False))

    def make(_: int) -> bytes:
        wire.engine.consume(1, 1)
        return frame(DATA, 0, 1, b"x")

    assert 9000 <= flood(wire, make, 12000) <= 10100


LATE = {
    "HEADERS": frame(HEADERS, 4, 1, b""),
    "HEADERS that end": frame(HEADERS, 5, 1, b""),
    "empty DATA that ends": frame(DATA, 1, 1, b""),
    "empty DATA": frame(DATA, 0, 1, b""),
}


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("name", LATE)
def test_flood_on_a_stream_that_was_answered_early_is_stopped(wire, name, released):
    wire.feed(headers(1, base=POST, end=False))
    wire.engine.answer(1, 404, (), b"")
    if released:
        wire.engine.release(1)
    assert flood(wire, lambda _: LATE[name], 4000) <= 2010
    assert wire.engine.closing


def test_flood_on_streams_that_came_after_the_end_is_stopped(wire):
    wire.feed(headers(1, base=POST, end=False))
    wire.engine.drain_now()
    assert flood(wire, lambda _: frame(DATA, 1, 3, b"") + frame(HEADERS, 4, 1, b""), 4000) <= 2010
    assert wire.engine.closing


def test_settings_that_move_all_windows_many_times_are_stopped(wire):
    wire.feed(*(headers(number, base=POST, end=False) for number in range(1, 201, 2)))
    values = b"".join(b"\0\4" + (65535 + n % 2).to_bytes(4) for n in range(2730))
    assert flood(wire, lambda _: frame(SETTINGS, 0, 0, values), 100) <= 15
    assert wire.goaway == CALM


@pytest.mark.parametrize("who", ["the peer", "we"])
def test_answers_that_wait_and_are_reset_leave_nothing(who):
    wire = Wire("lean")
    wire.feed(frame(SETTINGS, 0, 0, b"\0\4" + bytes(4)))
    for number in range(1, 401, 2):
        wire.feed(headers(number))
        wire.engine.answer(number, 200, (), b"x" * 10)
        if who == "we":
            wire.engine.reset(number)
        else:
            wire.feed(frame(RST, 0, number, b"\0\0\0\x08"))
        wire.engine.release(number)
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, Stream)]


def test_rapid_reset_is_stopped_after_the_burst(wire):
    def make(number: int) -> bytes:
        stream = 2 * number + 1
        if number:
            wire.engine.release(stream - 2)
        return headers(stream) + frame(RST, 0, stream, b"\0\0\0\x08")

    assert 990 <= flood(wire, make, 2000) <= 1010
    assert wire.goaway == CALM
    assert wire.engine.fault == "rapid_reset"


PROVOCATIONS = {
    "WINDOW_UPDATE of nothing": lambda s: (
        headers(s, base=POST, end=False) + frame(WINDOW, 0, s, bytes(4))
    ),
    "window overflow": lambda s: (
        headers(s, base=POST, end=False) + frame(WINDOW, 0, s, b"\x7f\xff\xff\xff")
    ),
    "DATA on a half-closed stream": lambda s: headers(s) + frame(DATA, 1, s, b"x"),
    "HEADERS on a half-closed stream": lambda s: headers(s) + headers(s),
    "content-length exceeded": lambda s: (
        headers(s, (b"content-length", b"1"), base=POST, end=False) + frame(DATA, 1, s, b"abc")
    ),
    "malformed head": lambda s: headers(s, (b"connection", b"close")),
}


@pytest.mark.parametrize("name", PROVOCATIONS)
def test_made_you_reset_is_stopped_like_rapid_reset(wire, name):
    opened = 0

    def make(number: int) -> bytes:
        stream = 2 * number + 1
        if number:
            wire.engine.release(stream - 2)
        return PROVOCATIONS[name](stream)

    taken = flood(wire, make, 3000)
    opened = wire.kinds().count("Opened")
    assert taken <= 1010
    assert wire.engine.closing
    assert opened <= 1010


def test_streams_cancelled_by_reset_never_exceed_twice_the_limit_at_work(wire):
    for number in range(1, 801, 2):
        wire.feed(headers(number), frame(RST, 0, number, b"\0\0\0\x08"))
        assert wire.engine.open_streams <= 200
    assert wire.kinds().count("Opened") == 200


def test_continuation_flood_is_stopped_within_the_bound(wire):
    wire.feed(frame(HEADERS, 1, 1, b""))
    assert flood(wire, lambda _: frame(CONTINUATION, 0, 1, b""), 1000) <= 65
    assert wire.engine.closing
    assert wire.events == []


def test_large_continuations_are_stopped_by_their_octets(wire):
    wire.feed(frame(HEADERS, 1, 1, b""))
    assert flood(wire, lambda _: frame(CONTINUATION, 0, 1, bytes(16384)), 1000) <= 4
    assert wire.goaway == CALM


def test_oversize_frame_is_refused_from_its_header(wire):
    wire.feed((2**24 - 1).to_bytes(3) + bytes((0, 0)) + (1).to_bytes(4))
    assert wire.goaway == 6


def test_hpack_bomb_is_refused_at_the_lists_bound(wire):
    entry = b"\x40\x01x\x7f\x80\x1f" + b"y" * 4095
    wire.feed(frame(HEADERS, 5, 1, block(*GET) + entry[:3] + b"\x7f\x81\x1e" + b"y" * 3968))
    opened = len(wire.events)
    taken = flood(wire, lambda n: frame(HEADERS, 5, 2 * n + 3, block(*GET) + b"\xbe" * 4000), 300)
    assert taken == 0
    assert wire.engine.closing
    assert opened == 1


def test_streams_beyond_the_limit_leave_the_first_hundred_alone(wire):
    wire.feed(*(headers(number) for number in range(1, 1801, 2)))
    assert not wire.engine.closing
    assert wire.kinds() == ["Opened"] * 100
    assert set(wire.resets().values()) == {7}
    for number in range(1, 201, 2):
        wire.engine.answer(number, 200, (), b"ok")
    wire.collect()
    assert sum(kind == DATA for kind, _, _, _ in wire.sent) == 100
