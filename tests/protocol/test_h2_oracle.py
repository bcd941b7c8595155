"""The lean engine against the h2 package: the same octets give the same events and the same refusals."""

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import FlowControlError
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.protocol.guard import FLOW_CONTROL_ERROR
from hub.protocol.h2_output import frame
from hub.protocol.message import Bounds, EngineEvent, Gone
from tests.protocol.h2_frames import (
    CONTINUATION,
    DATA,
    GET,
    GOAWAY,
    GREETING,
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

STREAMS = st.sampled_from([1, 3, 5, 7])
FIELDS = st.sampled_from(
    [
        (b"content-length", b"3"), (b"content-length", b"0"), (b"connection", b"close"), (b"te", b"trailers"),
        (b"x-a", b"b"), (b"X-A", b"b"), (b"x-a", b"b\r\nc: d"), (b"host", b"localhost"), (b"host", b"other"),
        (b"authorization", b"Bearer x"), (b":path", b"/other"), (b"cookie", b"a=b"), (b"x a", b"b"), (b"x", b" a"),
    ]
)  # fmt: skip
FRAMES = st.one_of(
    st.builds(
        lambda s, base, extra, end: headers(s, *extra, base=base, end=end),
        STREAMS, st.sampled_from([GET, POST, GET[:3], (*GET, GET[0])]), st.lists(FIELDS, max_size=2), st.booleans(),
    ),
    st.builds(lambda s, end, data: frame(DATA, int(end), s, data), STREAMS, st.booleans(), st.sampled_from([b"", b"abc", b"a" * 9000])),
    st.builds(lambda s, end: frame(DATA, 8 | end, s, b"\x02abc\0\0"), STREAMS, st.booleans()),
    st.builds(lambda s: frame(RST, 0, s, bytes(4)), STREAMS),
    st.builds(lambda s, n: frame(WINDOW, 0, s, n.to_bytes(4)), st.sampled_from([0, 1, 3]), st.sampled_from([0, 1, 2**31 - 1])),
    st.builds(lambda s, n: frame(PRIORITY, 0, s, bytes(n)), STREAMS, st.sampled_from([5, 4])),
    st.builds(lambda n, v: frame(SETTINGS, 0, 0, n.to_bytes(2) + v.to_bytes(4)), st.sampled_from([1, 2, 3, 4, 5, 6, 99]), st.sampled_from([0, 1, 16384, 65535, 2**31])),
    st.sampled_from([
        frame(PING, 0, 0, bytes(8)), frame(PING, 1, 0, bytes(8)), frame(PING, 0, 0, b"x"), frame(GOAWAY, 0, 0, bytes(8)),
        frame(0x55, 3, 9, b"grease"), frame(CONTINUATION, 4, 1, b""), frame(SETTINGS, 1, 0, b""),
        frame(HEADERS, 1, 1, block(*GET)) + frame(CONTINUATION, 4, 1, b""),
        frame(HEADERS, 0, 3, block(*POST)[:4]) + frame(CONTINUATION, 4, 3, block(*POST)[4:]),
    ]),
)  # fmt: skip


def ends(octets: bytes) -> set[int]:
    """Return the streams that frames end."""
    found, at = set(), 0
    while at < len(octets):
        kind, flags = octets[at + 3], octets[at + 4]
        if kind in {DATA, HEADERS} and flags & 1:
            found.add(int.from_bytes(octets[at + 5 : at + 9]))
        at += 9 + int.from_bytes(octets[at : at + 3])
    return found


def said(events: list[EngineEvent]) -> list[EngineEvent]:
    return [event for event in events if not isinstance(event, Gone)]


@given(st.lists(FRAMES, max_size=10))
@settings(max_examples=500, deadline=None)
def test_same_octets_same_events(frames):
    lean, package, ended = Wire("lean"), Wire("package"), set()
    for octets in frames:
        ours, theirs = lean.feed(octets), package.feed(octets)
        if package.engine.fault:
            # The package ends the connection for some errors of a stream, as the RFC allows; what it had said till
            # then, and no more, the lean engine says too.
            assert said(ours) == said(theirs)
            return
        if lean.engine.fault == "reset_of_idle":
            return  # section 6.4 demands it; the package lets it pass once a lower stream was opened
        stream = int.from_bytes(octets[5:9])
        if lean.engine.fault == "headers_on_closed" and stream in ended & set(package.resets()):
            return  # section 5.1 allows it: both sides had ended the stream; the package forgets that the peer had
        ended |= ends(octets)
        assert not lean.engine.fault, lean.engine.fault
        assert said(ours) == said(theirs)
        assert {e.stream for e in ours if isinstance(e, Gone)} == {
            e.stream for e in theirs if isinstance(e, Gone)
        }
        if not lean.engine.closing and lean.goaway is None:
            # After the last GOAWAY frames of later streams may be ignored (section 6.8); the package resets some.
            assert set(lean.resets()) == set(package.resets())


@given(st.lists(FRAMES, max_size=8), st.data())
@settings(max_examples=200, deadline=None)
def test_any_chunking_gives_the_same(frames, data):
    octets = b"".join(frames)
    whole, cut = Wire("lean"), Wire("lean")
    whole.feed(octets)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(octets)), max_size=6)))
    for a, b in zip([0, *cuts], [*cuts, len(octets)], strict=True):
        cut.feed(octets[a:b])
    assert cut.events == whole.events
    assert cut.sent == whole.sent
    assert cut.engine.fault == whole.engine.fault


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_garbage_never_raises(octets):
    for engine in ("lean", "package"):
        Wire(engine).feed(octets)
        Wire(engine).feed(frame(HEADERS, 5, 1, octets))


def answers(wire: Wire, sizes: list[int], windows: list[tuple[int, int]]) -> dict[int, bytes]:
    """Let an engine answer GETs while windows open; return what it sent per stream."""
    wire.feed(frame(SETTINGS, 0, 0, (4).to_bytes(2) + (100).to_bytes(4)))
    for number, size in enumerate(sizes):
        stream = 2 * number + 1
        wire.feed(headers(stream))
        wire.engine.answer(stream, 200, ((b"x", b"y"),), bytes([number]) * size)
    for stream, step in windows:
        wire.feed(frame(WINDOW, 0, stream, step.to_bytes(4)))
    wire.collect()
    sent: dict[int, bytes] = {}
    for kind, _, stream, payload in wire.sent:
        if kind == DATA:
            sent[stream] = sent.get(stream, b"") + payload
    return sent


@given(
    st.lists(st.integers(0, 70_000), min_size=1, max_size=3),
    st.lists(st.tuples(st.sampled_from([0, 1, 3, 5]), st.integers(1, 60_000)), max_size=8),
)
@settings(max_examples=100, deadline=None)
def test_windows_are_obeyed_alike(sizes, windows):
    windows = [(stream, step) for stream, step in windows if stream < 2 * len(sizes)]
    lean, package = answers(Wire("lean"), sizes, windows), answers(Wire("package"), sizes, windows)
    assert (
        sum(map(len, lean.values()))
        == sum(map(len, package.values()))
        <= 65535 + sum(step for stream, step in windows if not stream)
    )
    if sum(map(len, lean.values())) < 65535:
        assert lean == package


def oracle_refuses(sizes: list[int], answered_at: int) -> int | None:
    """Return the index of the DATA frame at which ``h2`` itself sees the stream's window overrun."""
    server = H2Connection(H2Configuration(client_side=False, header_encoding=None))
    server.initiate_connection()
    server.increment_flow_control_window(Bounds().connection_window - 65535)
    server.receive_data(GREETING + headers(1, base=POST, end=False))
    for index, size in enumerate(sizes):
        if index == answered_at:
            server.send_headers(1, [(b":status", b"401")], end_stream=True)
        try:
            server.receive_data(frame(DATA, 0, 1, bytes(size)))
        except FlowControlError:
            return index
    return None


@given(
    st.lists(st.sampled_from([1, 100, 8192, 16383, 16384]), min_size=1, max_size=12),
    st.integers(0, 11),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_data_after_an_early_answer_is_held_to_its_window_as_h2_does(sizes, answered_at, released):
    wire = Wire("lean")
    wire.feed(headers(1, base=POST, end=False))
    refused = None
    for index, size in enumerate(sizes):
        if index == answered_at:
            wire.engine.answer(1, 401, (), b"")
            if released:
                wire.engine.release(1)
        wire.feed(frame(DATA, 0, 1, bytes(size)))
        if refused is None and (wire.engine.closing or 1 in late_errors(wire)):
            refused = index
    assert refused == oracle_refuses(sizes, answered_at)
    if refused is not None and refused >= answered_at:
        assert (wire.goaway, wire.engine.fault) == (FLOW_CONTROL_ERROR, "late_data")


def late_errors(wire: Wire) -> set[int]:
    return {stream for stream, code in wire.resets().items() if code == FLOW_CONTROL_ERROR}
