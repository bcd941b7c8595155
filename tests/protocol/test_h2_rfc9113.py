"""RFC 9113, section by section: what breaks a rule ends the stream or the connection with the right error."""

import pytest
from hpack import Decoder

from hub.protocol.h2_output import frame
from tests.protocol.h2_frames import (
    CONTINUATION,
    DATA,
    ENGINES,
    GET,
    GOAWAY,
    GREETING,
    HEADERS,
    PING,
    POST,
    PREFACE,
    PRIORITY,
    PUSH,
    RST,
    SETTINGS,
    WINDOW,
    Wire,
    block,
    headers,
)

PROTOCOL, FLOW, CLOSED, SIZE, REFUSED, COMPRESSION, CALM = 1, 3, 5, 6, 7, 9, 11
OPEN = headers(1, base=POST, end=False)
HALF = headers(1)


@pytest.fixture(params=sorted(ENGINES))
def wire(request):
    return Wire(request.param)


def setting(name: int, value: int) -> bytes:
    return frame(SETTINGS, 0, 0, name.to_bytes(2) + value.to_bytes(4))


CONNECTION_ERRORS = {
    "4.2 DATA longer than the maximum": (OPEN + frame(DATA, 0, 1, bytes(16385)), {SIZE}),
    "4.2 HEADERS longer than the maximum": (frame(HEADERS, 5, 1, bytes(16385)), {SIZE}),
    "4.3 block that is no HPACK": (frame(HEADERS, 5, 1, b"\x80"), {COMPRESSION}),
    "4.3 block cut short": (frame(HEADERS, 5, 1, b"\x40\x05a"), {COMPRESSION}),
    "4.3 other frame inside a block": (frame(HEADERS, 1, 1, block(*GET)) + frame(PING, 0, 0, bytes(8)), {PROTOCOL}),
    "4.3 other stream inside a block": (frame(HEADERS, 1, 1, block(*GET)) + headers(3), {PROTOCOL}),
    "5.1 idle: DATA": (frame(DATA, 0, 1, b"x"), {PROTOCOL}),
    "5.1 idle: RST_STREAM": (frame(RST, 0, 1, bytes(4)), {PROTOCOL}),
    "5.1 idle: WINDOW_UPDATE": (frame(WINDOW, 0, 1, b"\0\0\0\1"), {PROTOCOL}),
    "5.1 idle: CONTINUATION": (frame(CONTINUATION, 4, 1, b""), {PROTOCOL}),
    "5.1.1 even stream number": (headers(2), {PROTOCOL}),
    "6.1 DATA on stream 0": (frame(DATA, 0, 0, b"x"), {PROTOCOL}),
    "6.1 padding as long as the frame": (OPEN + frame(DATA, 8, 1, b"\x05abc"), {PROTOCOL}),
    "6.2 HEADERS on stream 0": (frame(HEADERS, 5, 0, block(*GET)), {PROTOCOL}),
    "6.2 padding longer than the frame": (frame(HEADERS, 0xD, 1, b"\xff" + block(*GET)), {PROTOCOL}),
    "6.3 PRIORITY on stream 0": (frame(PRIORITY, 0, 0, bytes(5)), {PROTOCOL}),
    "6.3 PRIORITY of wrong size": (frame(PRIORITY, 0, 1, bytes(4)), {SIZE}),
    "6.4 RST_STREAM on stream 0": (frame(RST, 0, 0, bytes(4)), {PROTOCOL}),
    "6.4 RST_STREAM of wrong size": (OPEN + frame(RST, 0, 1, bytes(3)), {SIZE}),
    "6.5 SETTINGS on a stream": (frame(SETTINGS, 0, 1, b""), {PROTOCOL}),
    "6.5 SETTINGS of wrong size": (frame(SETTINGS, 0, 0, bytes(3)), {SIZE}),
    "6.5 SETTINGS ack with payload": (frame(SETTINGS, 1, 0, bytes(6)), {SIZE}),
    "6.5.2 ENABLE_PUSH neither 0 nor 1": (setting(2, 2), {PROTOCOL}),
    "6.5.2 INITIAL_WINDOW_SIZE too large": (setting(4, 2**31), {FLOW}),
    "6.5.2 MAX_FRAME_SIZE too small": (setting(5, 16383), {PROTOCOL}),
    "6.5.2 MAX_FRAME_SIZE too large": (setting(5, 2**24), {PROTOCOL}),
    "6.6 PUSH_PROMISE from a client": (OPEN + frame(PUSH, 4, 1, b"\0\0\0\2" + block(*GET)), {PROTOCOL}),
    "6.7 PING on a stream": (frame(PING, 0, 1, bytes(8)), {PROTOCOL}),
    "6.7 PING of wrong size": (frame(PING, 0, 0, bytes(7)), {SIZE}),
    "6.8 GOAWAY on a stream": (frame(GOAWAY, 0, 1, bytes(8)), {PROTOCOL}),
    "6.9 WINDOW_UPDATE of nothing": (frame(WINDOW, 0, 0, bytes(4)), {PROTOCOL}),
    "6.9 WINDOW_UPDATE of wrong size": (frame(WINDOW, 0, 0, bytes(3)), {SIZE}),
    "6.9.1 connection window overflow": (frame(WINDOW, 0, 0, b"\x7f\xff\xff\xff"), {FLOW}),
    "6.9.2 initial window overflows a stream": (
        OPEN + frame(WINDOW, 0, 1, b"\x7f\xff\0\0") + setting(4, 2**31 - 1), {FLOW},
    ),
    "6.10 CONTINUATION after the block's end": (HALF + frame(CONTINUATION, 4, 1, b""), {PROTOCOL}),
    "10.5.1 header list beyond the bound": (
        frame(HEADERS, 1, 1, block(*GET, (b"x", bytes(0x61 for _ in range(16000)))))
        + frame(CONTINUATION, 0, 1, b"\x40\x01y\x7f\x80\x7c" + bytes(16250)) + frame(CONTINUATION, 4, 1, bytes(9000)),
        {CALM, COMPRESSION},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONNECTION_ERRORS)
def test_connection_error(wire, name):
    octets, codes = CONNECTION_ERRORS[name]
    wire.feed(octets)
    package = isinstance(wire.engine, ENGINES["package"])  # says PROTOCOL_ERROR for some
    assert wire.goaway in (codes | {PROTOCOL} if package else codes)
    assert wire.engine.closing
    assert wire.engine.fault


STREAM_ERRORS = {
    "5.1 half-closed: DATA": (HALF + frame(DATA, 1, 1, b"x"), {CLOSED}),
    "5.1 half-closed: HEADERS": (HALF + headers(1), {CLOSED}),
    "6.9 WINDOW_UPDATE of nothing on a stream": (OPEN + frame(WINDOW, 0, 1, bytes(4)), {PROTOCOL}),
    "6.9.1 stream window overflow": (OPEN + frame(WINDOW, 0, 1, b"\x7f\xff\xff\xff"), {FLOW}),
    "8.1 trailers without END_STREAM": (OPEN + headers(1, base=((b"x", b"y"),), end=False), {PROTOCOL}),
    "8.1 pseudo-field in trailers": (OPEN + headers(1, base=((b":path", b"/"),)), {PROTOCOL}),
    "8.1.1 body shorter than content-length": (
        headers(1, (b"content-length", b"5"), base=POST, end=False) + frame(DATA, 1, 1, b"abc"), {PROTOCOL},
    ),
    "8.1.1 body longer than content-length": (
        headers(1, (b"content-length", b"1"), base=POST, end=False) + frame(DATA, 1, 1, b"abc"), {PROTOCOL},
    ),
    "8.1.1 content-length without a body": (headers(1, (b"content-length", b"5")), {PROTOCOL}),
    "8.2 field name in upper case": (headers(1, (b"X-Test", b"y")), {PROTOCOL}),
    "8.2.1 NUL in a value": (headers(1, (b"x", b"a\0b")), {PROTOCOL}),
    "8.2.1 line end in a value": (headers(1, (b"x", b"a\r\nb: c")), {PROTOCOL}),
    "8.2.1 space around a value": (headers(1, (b"x", b" a")), {PROTOCOL}),
    "8.2.1 colon in a name": (headers(1, (b"x:y", b"a")), {PROTOCOL}),
    "8.2.1 space in a name": (headers(1, (b"x y", b"a")), {PROTOCOL}),
    "8.2.2 connection": (headers(1, (b"connection", b"close")), {PROTOCOL}),
    "8.2.2 transfer-encoding": (headers(1, (b"transfer-encoding", b"chunked")), {PROTOCOL}),
    "8.2.2 upgrade": (headers(1, (b"upgrade", b"h2c")), {PROTOCOL}),
    "8.2.2 te other than trailers": (headers(1, (b"te", b"gzip")), {PROTOCOL}),
    "8.3 unknown pseudo-field": (headers(1, (b":test", b"x")), {PROTOCOL}),
    "8.3 response pseudo-field": (headers(1, (b":status", b"200")), {PROTOCOL}),
    "8.3 pseudo-field after a regular one": (headers(1, base=(*GET[:3], (b"x", b"y"), GET[3])), {PROTOCOL}),
    "8.3.1 no method": (headers(1, base=GET[1:]), {PROTOCOL}),
    "8.3.1 no scheme": (headers(1, base=(GET[0], *GET[2:])), {PROTOCOL}),
    "8.3.1 no path": (headers(1, base=GET[:3]), {PROTOCOL}),
    "8.3.1 empty path": (headers(1, base=(*GET[:3], (b":path", b""))), {PROTOCOL}),
    "8.3.1 method twice": (headers(1, base=(GET[0], *GET)), {PROTOCOL}),
    "8.3.1 path twice": (headers(1, base=(*GET, GET[3])), {PROTOCOL}),
    "8.3.1 host differs from authority": (headers(1, (b"host", b"other")), {PROTOCOL}),
    "8.2 content-length twice": (headers(1, (b"content-length", b"0"), (b"content-length", b"0")), {PROTOCOL}),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAM_ERRORS)
def test_stream_error(wire, name):
    """Section 5.4.2: the package treats some as connection errors, which the RFC allows; the lean engine none."""
    octets, codes = STREAM_ERRORS[name]
    wire.feed(octets)
    opened = [event for event in wire.events if type(event).__name__ == "Opened"]
    if wire.goaway is not None:
        assert isinstance(wire.engine, ENGINES["package"])
        assert wire.goaway in codes | {PROTOCOL, CLOSED}
    else:
        assert wire.resets()[1] in codes
    assert not opened or "Gone" in wire.kinds() or wire.engine.closing


REFUSED_HEADS = {
    "space in the path": (b":path", b"/a b"),
    "absolute form": (b":path", b"https://localhost/"),
    "asterisk form": (b":path", b"*"),
    "userinfo in the authority": (b":authority", b"a@localhost"),
    "junk scheme": (b":scheme", b"gopher"),
    "other scheme": (b":scheme", b"http"),
    "lower case method": (b":method", b"get"),
    "dot segments": (b":path", b"/a/../b"),
    "fragment": (b":path", b"/a#b"),
}


@pytest.mark.parametrize("name", REFUSED_HEADS)
def test_ambiguous_head_is_answered_with_400(wire, name):
    changed = REFUSED_HEADS[name]
    wire.feed(headers(1, base=tuple(changed if f[0] == changed[0] else f for f in GET)))
    (refused,) = wire.events
    assert (type(refused).__name__, refused.status) == ("Refused", 400)
    wire.engine.answer(1, 400, (), b"")
    wire.collect()
    assert wire.sent[-1][:3] == (HEADERS, 5, 1)
    assert not wire.engine.closing


def test_connect_is_refused(wire):
    wire.feed(headers(1, base=((b":method", b"CONNECT"), *GET[1:])))
    assert "Opened" not in wire.kinds()
    assert wire.kinds() == ["Refused"] or wire.engine.closing


def test_second_authorization_is_answered_with_400(wire):
    wire.feed(headers(1, (b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")))
    (refused,) = wire.events
    assert (type(refused).__name__, refused.status) == ("Refused", 400)


@pytest.mark.parametrize("engine", ENGINES)
def test_section_3_4_wrong_preface_is_a_connection_error(engine):
    made = Wire(engine).engine.__class__(Wire(engine).engine._bounds)
    made.receive(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 0.0)
    assert made.closing


def test_section_5_1_unknown_frames_are_ignored(wire):
    wire.feed(frame(0x7F, 0xFF, 0, b"anything"), headers(1))
    assert wire.kinds() == ["Opened"]


def test_section_5_3_priorities_are_ignored(wire):
    wire.feed(frame(PRIORITY, 0, 5, bytes(5)), frame(HEADERS, 0x25, 7, bytes(5) + block(*GET)))
    assert wire.kinds() == ["Opened"]


def test_section_5_1_2_streams_beyond_the_limit_are_refused_one_by_one():
    for engine in ENGINES:
        wire = Wire(engine, streams=3)
        wire.feed(*(headers(number) for number in range(1, 16, 2)))
        assert wire.resets() == dict.fromkeys(range(7, 16, 2), REFUSED)
        assert wire.engine.open_streams == 3
        for number in (1, 3, 5):
            wire.engine.answer(number, 200, (), b"ok")
            wire.engine.release(number)
        wire.feed(headers(17))
        assert wire.kinds() == ["Opened"] * 4


def test_section_5_1_2_an_answered_stream_makes_room_before_it_is_released():
    for engine in ENGINES:
        wire = Wire(engine, streams=1)
        wire.feed(headers(1))
        wire.engine.answer(1, 200, (), b"x" * 65_536)
        wire.feed(headers(3))
        assert wire.resets() == {3: REFUSED}, "an octet waits for the window"
        wire.feed(
            frame(WINDOW, 0, 1, (9).to_bytes(4)), frame(WINDOW, 0, 0, (9).to_bytes(4)), headers(5)
        )
        assert wire.kinds() == ["Opened"] * 2
        wire.engine.release(1)
        wire.feed(headers(7))
        assert wire.resets() == {3: REFUSED, 7: REFUSED}, "no place is given twice"


def test_section_5_1_2_a_stream_answered_before_its_body_came_makes_room():
    for engine in ENGINES:
        wire = Wire(engine, streams=1)
        wire.feed(OPEN)
        wire.engine.answer(1, 413, (), b"")
        wire.feed(headers(3))
        assert wire.kinds() == ["Opened"] * 2
        wire.engine.release(1)
        assert wire.engine.open_streams == 1


def test_section_5_1_2_all_streams_may_be_given_up_and_as_many_opened_at_once():
    for engine in ENGINES:
        wire = Wire(engine, streams=3)
        wire.feed(*(headers(number) for number in (1, 3, 5)))
        wire.feed(*(frame(RST, 0, number, bytes(4)) for number in (1, 3, 5)))
        wire.feed(*(headers(number) for number in (7, 9, 11, 13)))
        assert wire.kinds() == ["Opened"] * 3 + ["Gone"] * 3 + ["Opened"] * 3
        assert wire.resets() == {13: REFUSED}


@pytest.mark.parametrize("ours", [False, True])
def test_section_5_1_reset_stream_is_at_work_until_released(ours):
    for engine in ENGINES:
        wire = Wire(engine, streams=1)
        for number in (1, 3):
            wire.feed(headers(number))
            if ours:
                wire.engine.reset(number)
            else:
                wire.feed(frame(RST, 0, number, bytes(4)))
        assert wire.engine.open_streams == 2
        wire.feed(headers(5))
        assert wire.resets()[5] == REFUSED
        wire.engine.release(1)
        wire.feed(headers(7))
        assert wire.kinds().count("Opened") == 3
        wire.engine.release(3)
        wire.engine.answer(7, 200, (), b"")
        wire.engine.release(7)
        assert wire.engine.open_streams == 0


def test_section_6_1_padding_counts_for_flow_control(wire):
    wire.feed(OPEN, frame(DATA, 8, 1, b"\x03abc\0\0\0"))
    body = wire.events[-1]
    assert (body.data, body.octets) == (b"abc", 7)


@pytest.mark.parametrize("first", [0, 100, 4096])
def test_section_4_3_1_a_smaller_compression_table_is_confirmed_by_the_next_header_block(
    wire, first
):
    wire.feed(setting(1, first), headers(1), headers(3), headers(5))
    wire.engine.go_on(1)
    wire.feed(setting(1, 0))
    wire.engine.answer(1, 200, ((b"server", b"hub"),), b"x")
    wire.engine.answer(3, 204, (), b"")
    wire.feed(setting(1, 4096))
    wire.engine.start(5, 200, ())
    wire.collect()
    blocks = [payload for kind, _, _, payload in wire.sent if kind == HEADERS]
    assert len(blocks) == 4
    strict = Decoder()
    strict.max_allowed_table_size = first
    strict.decode(blocks[0])
    strict.max_allowed_table_size = 0
    assert (b"server", b"hub") in strict.decode(blocks[1], raw=True)
    assert strict.decode(blocks[2], raw=True) == [(b":status", b"204")]
    strict.max_allowed_table_size = 4096
    assert strict.decode(blocks[3], raw=True)[0] == (b":status", b"200")


def test_section_8_1_nobody_is_told_to_go_on_with_a_stream_that_is_reset(wire):
    wire.feed(OPEN, frame(RST, 0, 1, bytes(4)))
    wire.engine.go_on(1)
    wire.collect()
    assert not [kind for kind, *_ in wire.sent if kind == HEADERS]


def test_section_6_5_settings_are_acknowledged(wire):
    wire.feed(setting(3, 7))
    assert (SETTINGS, 1, 0, b"") in wire.sent


def test_section_6_7_ping_is_answered_with_its_own_octets(wire):
    wire.feed(frame(PING, 0, 0, b"12345678"))
    assert wire.sent == [(PING, 1, 0, b"12345678")]


def test_section_6_9_answers_wait_for_the_streams_window(wire):
    wire.feed(setting(4, 3), headers(1))
    wire.engine.answer(1, 200, (), b"abcdef")
    wire.collect()
    assert [p for kind, _, _, p in wire.sent if kind == DATA] == [b"abc"]
    assert wire.engine.backlog(1) == 3
    wire.feed(frame(WINDOW, 0, 1, b"\0\0\0\2"), setting(4, 4))
    assert [p for kind, _, _, p in wire.sent if kind == DATA] == [b"abc", b"de", b"f"]
    assert wire.sent[-1][1] & 1 or wire.sent[-2][1] & 1


def test_section_6_9_answers_wait_for_the_connections_window(wire):
    wire.feed(setting(4, 200_000), headers(1), headers(3))
    wire.engine.answer(1, 200, (), bytes(65000))
    wire.engine.answer(3, 200, (), bytes(65000))
    wire.collect()
    assert sum(len(p) for kind, _, _, p in wire.sent if kind == DATA) == 65535
    wire.feed(frame(WINDOW, 0, 0, (100_000).to_bytes(4)))
    assert sum(len(p) for kind, _, _, p in wire.sent if kind == DATA) == 130_000


def test_section_6_9_1_peer_that_ignores_the_window_is_stopped(wire):
    wire.feed(OPEN, *(frame(DATA, 0, 1, bytes(16384)) for _ in range(5)))
    assert wire.goaway == FLOW or wire.resets()[1] == FLOW


def test_section_8_1_early_answer_stops_the_request_without_an_error(wire):
    wire.feed(OPEN)
    wire.engine.answer(1, 401, (), b"no")
    wire.collect()
    assert wire.resets() == {1: 0}
    wire.engine.release(1)
    wire.feed(frame(DATA, 1, 1, b"late"), headers(3))
    assert wire.kinds() == ["Opened", "Opened"]
    assert wire.goaway is None


def announced(octets, *more):
    return headers(1, (b"content-length", b"%d" % octets), *more, base=POST, end=False)


def test_section_8_1_an_announced_body_may_be_sent_to_its_end_though_it_was_answered():
    """Java's own client (JDK 17) waits for the window and ignores the reset, and would never look at the answer."""
    wire = Wire("lean")
    wire.feed(announced(200_000), frame(DATA, 0, 1, bytes(10_000)))
    wire.engine.answer(1, 401, (), b"")
    wire.engine.release(1)
    wire.collect()
    told = [(kind, payload) for kind, _, stream, payload in wire.sent if stream == 1]
    assert told[1:] == [(WINDOW, (200_000 - 65_535).to_bytes(4)), (RST, bytes(4))]
    wire.feed(*[frame(DATA, 0, 1, bytes(10_000)) for _ in range(18)])
    wire.feed(frame(DATA, 1, 1, bytes(10_000)), headers(3))
    assert wire.kinds() == ["Opened", "Body", "Opened"]
    assert wire.goaway is None


def test_section_8_1_no_more_is_taken_of_an_answered_body_than_was_announced():
    wire = Wire("lean")
    wire.feed(announced(70_000))
    wire.engine.answer(1, 401, (), b"")
    wire.engine.release(1)
    wire.feed(*[frame(DATA, 0, 1, bytes(10_000)) for _ in range(7)])
    assert wire.goaway is None
    wire.feed(frame(DATA, 0, 1, b"x"))
    assert wire.goaway == FLOW


@pytest.mark.parametrize(
    "opened", [OPEN, announced(16_777_217), announced(70_000, (b"expect", b"100-continue"))]
)
def test_section_8_1_who_announces_nothing_or_too_much_or_waits_for_a_word_gets_no_window(opened):
    wire = Wire("lean")
    wire.feed(opened)
    wire.engine.answer(1, 401, (), b"")
    wire.collect()
    assert [kind for kind, _, stream, _ in wire.sent if stream == 1] == [HEADERS, RST]


def test_section_6_8_drain_has_two_stages(wire):
    wire.feed(headers(1))
    wire.engine.drain()
    wire.collect()
    assert [p[:4] for kind, _, _, p in wire.sent if kind == GOAWAY] == [(2**31 - 1).to_bytes(4)]
    ping = next(p for kind, _, _, p in wire.sent if kind == PING)
    wire.feed(headers(3), frame(PING, 1, 0, ping), headers(5))
    last = [p[:4] for kind, _, _, p in wire.sent if kind == GOAWAY][-1]
    assert int.from_bytes(last) == 3
    assert wire.resets() == {5: REFUSED}
    for number in (1, 3):
        assert not wire.engine.closing
        wire.engine.answer(number, 200, (), b"")
        wire.engine.release(number)
    assert wire.engine.closing


def test_section_6_8_goaway_of_the_peer_lets_open_streams_finish(wire):
    wire.feed(headers(1), frame(GOAWAY, 0, 0, bytes(8)))
    wire.engine.answer(1, 200, (), b"still")
    wire.collect()
    assert b"still" in [p for kind, _, _, p in wire.sent if kind == DATA]
    wire.engine.release(1)
    assert wire.engine.closing


@pytest.mark.parametrize("engine", ENGINES)
def test_chunking_changes_nothing(engine):
    octets = GREETING[24:] + OPEN + frame(DATA, 0, 1, b"abc") + headers(3) + frame(DATA, 1, 1, b"")
    whole = Wire(engine)
    whole.feed(octets[9:])
    cut = Wire(engine)
    for at in range(9, len(octets)):
        cut.feed(octets[at : at + 1])
    assert cut.events == whole.events
    assert cut.sent == whole.sent
    assert GREETING[:24] == PREFACE
