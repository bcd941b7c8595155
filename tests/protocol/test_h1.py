"""HTTP/1.1: framing without ambiguity, with h11 as oracle; order, keep-alive, HEAD, Expect, drain."""

from itertools import pairwise

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.protocol import h1
from hub.protocol.h1 import H1Engine
from hub.protocol.message import Body, Bounds, Ended, EngineEvent, Gone, Opened, Refused

H = b"Host: h\r\n"


def engine(**bounds: object) -> H1Engine:
    return H1Engine(Bounds(**bounds))


def feed(*octets: bytes, **bounds: object) -> tuple[H1Engine, list[EngineEvent]]:
    made = engine(**bounds)
    events = [event for piece in octets for event in made.receive(piece, 0.0)]
    return made, events


def body_of(events: list[EngineEvent]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, Body))


def test_sized_body_ends_where_it_says():
    _, events = feed(b"POST /a?b HTTP/1.1\r\n" + H + b"Content-Length: 5\r\n\r\nhelloGET")
    assert isinstance(events[0], Opened)
    assert (events[0].head.method, events[0].head.path, events[0].head.query) == ("POST", "/a", "b")
    assert body_of(events) == b"hello"
    assert isinstance(events[-1], Ended)


def test_chunked_body_with_extensions_and_trailers():
    _, events = feed(
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n"
        b"5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nX-Trailer: y\r\n\r\n"
    )
    assert body_of(events) == b"hello!"
    assert isinstance(events[-1], Ended)


SMUGGLING = {
    "both lengths": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, other order": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "length twice, different": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "length twice, equal": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "length as a list": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5, 5\r\n\r\nhello",
    "length with a plus": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: +5\r\n\r\nhello",
    "length negative": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: -1\r\n\r\n",
    "length in hex": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 0x5\r\n\r\nhello",
    "length huge": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "length empty": b"POST / HTTP/1.1\r\n" + H + b"Content-Length:\r\n\r\n",
    "length with underscore": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 1_0\r\n\r\n0123456789",
    "coding xchunked": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding gzip, chunked": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding chunked, identity": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "coding twice": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding identity": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: identity\r\n\r\n",
    "coding with vertical tab": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "coding quoted": b"POST / HTTP/1.1\r\n" + H + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "coding with HTTP/1.0": b"POST / HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "space before colon": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "tab before colon": b"POST / HTTP/1.1\r\n" + H + b"Content-Length\t: 5\r\n\r\nhello",
    "space before name": b"GET / HTTP/1.1\r\n Host: h\r\n\r\n",
    "folded line": b"GET / HTTP/1.1\r\n" + H + b"X: a\r\n b\r\n\r\n",
    "folded coding": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "bare LF ends a line": b"GET / HTTP/1.1\n" + H + b"\r\n",
    "bare LF ends the head": b"GET / HTTP/1.1\r\nHost: h\n\n\r\n\r\n",
    "bare CR in a value": b"GET / HTTP/1.1\r\n" + H + b"X: a\rb\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\n" + H + b"X: a\0b\r\n\r\n",
    "NUL in a name": b"GET / HTTP/1.1\r\n" + H + b"X\0: a\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\n" + H + b"X\r\n\r\n",
    "empty name": b"GET / HTTP/1.1\r\n" + H + b": a\r\n\r\n",
    "non-ASCII name": b"GET / HTTP/1.1\r\n" + H + b"X\xff: a\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "host twice": b"GET / HTTP/1.1\r\n" + H + H + b"\r\n",
    "host with userinfo": b"GET / HTTP/1.1\r\nHost: a@h\r\n\r\n",
    "host with path": b"GET / HTTP/1.1\r\nHost: h/x\r\n\r\n",
    "absolute form": b"GET http://h/ HTTP/1.1\r\n" + H + b"\r\n",
    "authority form": b"CONNECT h:443 HTTP/1.1\r\n" + H + b"\r\n",
    "asterisk form": b"OPTIONS * HTTP/1.1\r\n" + H + b"\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\n" + H + b"\r\n",
    "space in target": b"GET /a b HTTP/1.1\r\n" + H + b"\r\n",
    "tab in request line": b"GET\t/ HTTP/1.1\r\n" + H + b"\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\n" + H + b"\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\n" + H + b"\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "lower case version": b"GET / http/1.1\r\n" + H + b"\r\n",
    "lower case method": b"get / HTTP/1.1\r\n" + H + b"\r\n",
    "unknown method": b"FOO / HTTP/1.1\r\n" + H + b"\r\n",
    "empty lines first": b"\r\n\r\nGET / HTTP/1.1\r\n" + H + b"\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "two authorizations": b"GET / HTTP/1.1\r\n" + H + b"Authorization: a\r\nAuthorization: b\r\n\r\n",
    "unknown expectation": b"POST / HTTP/1.1\r\n" + H + b"Expect: lunch\r\nContent-Length: 1\r\n\r\nx",
    "fragment": b"GET /a#b HTTP/1.1\r\n" + H + b"\r\n",
    "control in target": b"GET /\x01 HTTP/1.1\r\n" + H + b"\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", SMUGGLING)
def test_ambiguous_head_is_refused_and_the_connection_closed(name):
    made, events = feed(SMUGGLING[name])
    (refused,) = events
    assert isinstance(refused, Refused)
    assert refused.status in {400, 417, 501, 505}
    assert made.receive(b"GET / HTTP/1.1\r\n" + H + b"\r\n", 0.0) == []
    made.answer(refused.stream, refused.status, ((b"content-length", b"0"),), b"")
    assert b"connection: close" in made.take()
    assert made.closing


BROKEN_CHUNKS = {
    "bare LF after the size": b"5\nhello\r\n0\r\n\r\n",
    "bare LF after the data": b"5\r\nhello\n0\r\n\r\n",
    "no line end after the data": b"5\r\nhelloX\r\n0\r\n\r\n",
    "size with a plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "size with an underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
    "size huge": b"fffffffffffffffff\r\n",
    "size empty": b"\r\nhello\r\n",
    "size negative": b"-1\r\n",
    "space before the size": b" 5\r\nhello\r\n0\r\n\r\n",
    "bare CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "extension too long": b"5;" + b"a" * 300 + b"\r\nhello\r\n0\r\n\r\n",
    "trailer without colon": b"0\r\nX\r\n\r\n",
    "trailer with space": b"0\r\nX y: z\r\n\r\n",
}


@pytest.mark.parametrize("name", BROKEN_CHUNKS)
def test_broken_chunk_ends_the_request_and_the_connection(name):
    made, events = feed(
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n" + BROKEN_CHUNKS[name]
    )
    assert isinstance(events[-1], Gone)
    assert not any(isinstance(event, Ended) for event in events)
    assert made.receive(b"0\r\n\r\nGET / HTTP/1.1\r\n" + H + b"\r\n", 0.0) == []
    made.reset(1)
    made.release(1)
    assert made.closing


def h11_reads(octets: bytes) -> tuple[str, bytes] | None:
    """Return what h11 makes of one request: target and body, or None if it refuses or waits for more."""
    oracle = h11.Connection(h11.SERVER)
    try:
        oracle.receive_data(octets)
        target, body = None, b""
        while True:
            event = oracle.next_event()
            if isinstance(event, h11.Request):
                target = event.target.decode("latin-1")
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return (target or "", body)
            else:
                return None
    except h11.RemoteProtocolError:
        return None


def we_read(octets: bytes) -> tuple[str, bytes] | None:
    _, events = feed(octets)
    if not any(isinstance(e, Ended) or (isinstance(e, Opened) and e.ended) for e in events):
        return None
    opened = events[0]
    assert isinstance(opened, Opened)
    head = opened.head
    return (head.path + ("?" + head.query if head.query else ""), body_of(events))


PIECES = st.sampled_from(
    [
        b"GET /a HTTP/1.1\r\n", b"POST /a HTTP/1.1\r\n", b"Host: h\r\n", b"Content-Length: 3\r\n", b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n", b"transfer-encoding:chunked\r\n", b"X: y\r\n", b"\r\n", b"abc", b"3\r\nabc\r\n",
        b"0\r\n\r\n", b"0\r\n", b"\n", b"\r", b" ", b"Expect: 100-continue\r\n", b"3;x\r\n", b"Connection: close\r\n",
    ]
)  # fmt: skip


@given(st.lists(PIECES, max_size=8).map(lambda p: b"POST /a HTTP/1.1\r\nHost: h\r\n" + b"".join(p)))
@settings(max_examples=600, deadline=None)
def test_whatever_we_accept_h11_reads_the_same(octets):
    ours = we_read(octets)
    if ours is not None:
        assert h11_reads(octets) == ours


@given(st.sampled_from(sorted(SMUGGLING.values())), st.data())
@settings(max_examples=100, deadline=None)
def test_chunking_changes_no_refusal(octets, data):
    cuts = sorted(data.draw(st.sets(st.integers(1, len(octets) - 1), max_size=4)))
    parts = [octets[a:b] for a, b in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
    _, whole = feed(octets)
    _, cut = feed(*parts)
    assert [type(e) for e in cut][:1] == [type(e) for e in whole][:1]
    assert not any(isinstance(event, Opened) for event in cut)


LAWFUL = (
    b"POST /a?b HTTP/1.1\r\nhost:h\r\nX:  y \t \r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n1\r\n\r\r\n0\r\nT: u\r\n\r\n"
)


def test_a_request_may_come_octet_by_octet():
    _, events = feed(*(bytes((octet,)) for octet in LAWFUL))
    _, whole = feed(LAWFUL)
    assert events[0] == whole[0]
    assert isinstance(events[0], Opened)
    assert events[0].head.headers[1] == (b"x", b"y"), "without the white space around it"
    assert body_of(events) == body_of(whole) == b"abc0123456789\r"
    assert events[-1] == Ended(1)


@given(st.sets(st.integers(1, len(LAWFUL) - 1), max_size=6))
@settings(max_examples=200, deadline=None)
def test_chunking_changes_no_request(cuts):
    edges = [0, *sorted(cuts), len(LAWFUL)]
    _, events = feed(*(LAWFUL[a:b] for a, b in pairwise(edges)))
    assert [type(event) for event in events if not isinstance(event, Body)] == [Opened, Ended]
    assert body_of(events) == b"abc0123456789\r"


@pytest.mark.parametrize("size", [1, 100])
def test_one_empty_line_is_forgiven_between_requests_however_it_comes(size):
    for lines, lawful in ((b"\r\n", True), (b"\r\n\r\n", False)):
        made, _ = feed(b"GET / HTTP/1.1\r\n" + H + b"\r\n")
        made.answer(1, 200, (), b"")
        made.release(1)
        octets = lines + b"GET / HTTP/1.1\r\n" + H + b"\r\n"
        events = [
            e
            for at in range(0, len(octets), size)
            for e in made.receive(octets[at : at + size], 0.0)
        ]
        assert [type(event) for event in events] == [Opened if lawful else Refused]


def test_a_head_that_drips_is_not_looked_at_again_and_again(monkeypatch):
    looked = 0

    class Search:
        def search(self, octets, start=0, end=None):
            nonlocal looked
            looked += (len(octets) if end is None else end) - start
            return real.search(octets, start, len(octets) if end is None else end)

    real = h1._STRAY
    monkeypatch.setattr(h1, "_STRAY", Search())
    head = b"GET / HTTP/1.1\r\n" + H + b"X: " + b"a" * 5000 + b"\r\n\r\n"
    _, events = feed(*(bytes((octet,)) for octet in head))
    assert isinstance(events[0], Opened)
    assert looked < 5 * len(head)


def test_chunks_of_one_octet_that_come_together_are_one_piece():
    _, events = feed(
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nX\r\n" * 9000
    )
    assert [type(event) for event in events] == [Opened, Body]
    assert body_of(events) == b"X" * 9000


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_garbage_never_raises(octets):
    feed(octets)
    feed(b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n" + octets)


def test_head_beyond_the_bound_is_refused_with_431():
    made, events = feed(b"GET / HTTP/1.1\r\n" + H + b"X: " + b"a" * 2000, header_octets=1000)
    assert isinstance(events[0], Refused)
    assert events[0].status == 431
    assert made.fault == "header_octets"


def test_requests_of_one_segment_are_answered_in_order():
    made, events = feed(
        (b"GET /1 HTTP/1.1\r\n" + H + b"\r\n") + (b"GET /2 HTTP/1.1\r\n" + H + b"\r\n")
    )
    assert [e.head.path for e in events if isinstance(e, Opened)] == ["/1"]
    made.answer(1, 200, ((b"content-length", b"1"),), b"a")
    (second,) = made.release(1)
    assert isinstance(second, Opened)
    assert second.head.path == "/2"
    made.answer(2, 200, ((b"content-length", b"1"),), b"b")
    made.release(2)
    assert not made.closing


def test_held_back_requests_stop_the_reading():
    made, _ = feed(b"GET /1 HTTP/1.1\r\n" + H + b"\r\n" + b"x" * 70000)
    assert not made.wants_data


def test_head_is_answered_without_body():
    made, _ = feed(b"HEAD / HTTP/1.1\r\n" + H + b"\r\n")
    made.answer(1, 200, ((b"content-length", b"5"),), b"hello")
    assert made.take() == b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"


def test_answer_of_unknown_length_is_chunked():
    made, _ = feed(b"GET / HTTP/1.1\r\n" + H + b"\r\n")
    made.start(1, 200, ())
    made.write(1, b"hello")
    made.end(1)
    assert made.take().endswith(b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")


def test_http_1_0_answer_of_unknown_length_ends_by_closing():
    made, _ = feed(b"GET / HTTP/1.0\r\n\r\n")
    made.start(1, 200, ())
    made.write(1, b"hello")
    made.end(1)
    made.release(1)
    assert made.take().endswith(b"connection: close\r\n\r\nhello")
    assert made.closing


def test_continue_is_sent_once_and_only_when_waited_for():
    made, _ = feed(
        b"POST / HTTP/1.1\r\n" + H + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    )
    made.go_on(1)
    made.go_on(1)
    assert made.take() == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_early_answer_closes_since_the_rest_of_the_body_cannot_be_skipped():
    made, _ = feed(b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 10\r\n\r\nabc")
    made.answer(1, 401, ((b"content-length", b"0"),), b"")
    made.release(1)
    assert b"connection: close" in made.take()
    assert made.closing


def test_drained_connection_says_close_with_its_last_answer():
    made, _ = feed(b"GET / HTTP/1.1\r\n" + H + b"\r\n")
    made.drain()
    made.answer(1, 200, ((b"content-length", b"0"),), b"")
    made.release(1)
    assert b"connection: close" in made.take()
    assert made.closing


def test_request_that_crosses_the_drain_is_still_answered():
    made = engine()
    made.drain()
    assert not made.closing
    (opened,) = made.receive(b"GET / HTTP/1.1\r\n" + H + b"\r\n", 0.0)
    assert isinstance(opened, Opened)
    made.drain_now()
    made.answer(1, 200, ((b"content-length", b"0"),), b"")
    made.release(1)
    assert b"connection: close" in made.take()
    assert made.closing


def test_upgrade_is_ignored():
    made, events = feed(
        b"GET / HTTP/1.1\r\n"
        + H
        + b"Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n"
    )
    assert isinstance(events[0], Opened)
    made.answer(1, 200, ((b"content-length", b"0"),), b"")
    made.release(1)
    assert not made.closing
