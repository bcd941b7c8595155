"""The lean client against the h2 package: the same octets of a server mean the same answers and the same refusals."""

from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.protocol.h2_client import H2Client
from hub.protocol.h2_output import frame
from hub.protocol.h2_request import request_block
from tests.protocol.h2_frames import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    PRIORITY,
    PUSH,
    RST,
    SETTINGS,
    WINDOW,
)
from tests.protocol.package_client import H2Client as PackageClient

STREAMS = st.sampled_from([1, 3, 5])
FIELDS = st.sampled_from(
    [
        ("content-length", "3"), ("content-length", "0"), ("content-type", "application/json"), ("date", "today"),
        ("x-a", "b"), ("X-A", "b"), ("x-a", "b\r\nc: d"), ("connection", "close"), ("x", " a"), (":path", "/"),
        ("x a", "b"), ("x-long", "y" * 200), ("etag", '"1"'), ("etag", '"2"'),
    ]
)  # fmt: skip
GOOD = st.sampled_from([("content-type", "application/json"), ("etag", '"1"'), ("x-a", "b")])
STATUS = st.sampled_from(["200", "200", "201", "404", "500", "103", "204", "099", "2000", "abc"])


def op(kind, *strategies):
    return st.tuples(st.just(kind), *strategies)


OPS = st.one_of(
    op("head", STREAMS, STATUS, st.lists(FIELDS, max_size=2), st.booleans(), st.booleans()),
    op("head", STREAMS, st.just("200"), st.lists(GOOD, max_size=3), st.booleans(), st.booleans()),
    op("trailers", STREAMS, st.lists(GOOD, max_size=1), st.booleans()),
    op("data", STREAMS, st.sampled_from([b"", b"abc", b"a" * 9000]), st.booleans(), st.booleans()),
    op("raw", st.builds(lambda s, c: frame(RST, 0, s, c.to_bytes(4)), STREAMS, st.sampled_from([0, 2, 7, 8]))),
    op("raw", st.builds(lambda last: frame(GOAWAY, 0, 0, last.to_bytes(4) + bytes(4)), st.sampled_from([0, 1, 3, 2**31 - 1]))),
    op("raw", st.builds(lambda s, n: frame(WINDOW, 0, s, n.to_bytes(4)), st.sampled_from([0, 1, 3]), st.sampled_from([0, 1, 2**31 - 1]))),
    op("raw", st.builds(lambda n, v: frame(SETTINGS, 0, 0, n.to_bytes(2) + v.to_bytes(4)), st.sampled_from([1, 3, 4, 5, 99]), st.sampled_from([0, 1, 16384, 65535]))),
    op("raw", st.sampled_from([
        frame(PING, 0, 0, bytes(8)), frame(PING, 1, 0, bytes(8)), frame(PING, 0, 0, b"x"), frame(0x55, 3, 9, b"grease"),
        frame(SETTINGS, 1, 0, b""), frame(SETTINGS, 0, 0, b"x"), frame(PRIORITY, 0, 1, bytes(5)),
        frame(CONTINUATION, 4, 1, b""), frame(PUSH, 4, 1, (2).to_bytes(4)), frame(GOAWAY, 0, 0, b"x"),
        frame(RST, 0, 2, bytes(4)), frame(DATA, 0, 7, b"x"), frame(HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff"),
    ])),
)  # fmt: skip


class Both:
    """The same three requests to both clients: two GETs and one POST."""

    def __init__(self):
        self.lean = H2Client(streams=10, header_octets=65_536)
        self.package = PackageClient(streams=10, header_octets=65_536)
        self.encoder = Encoder()
        block = request_block(b"GET", b"bank", b"/", ())
        self.ours = [self.lean.begin(block, body, want=10**6) for body in (b"", b"", b"abc")]
        self.theirs = [self.package.begin("GET", b"bank", "/", (), end=end) for end in (1, 1, 0)]
        self.package.send(self.theirs[2], b"abc", end=True)
        self.feed(frame(SETTINGS, 0, 0, b""))

    def feed(self, octets):
        self.lean.receive(octets, 0.0)
        self.package.receive(octets)
        self.lean.take()
        self.package.take()

    def octets(self, operation):
        """Return the octets of an operation; header blocks go through one stateful encoder."""
        kind, *rest = operation
        if kind == "raw":
            return rest[0]
        if kind == "data":
            stream, data, end, padded = rest
            payload = b"\x02" + data + b"\0\0" if padded else data
            return frame(DATA, int(end) | (8 if padded else 0), stream, payload)
        if kind == "trailers":
            stream, fields, end = rest
            return frame(HEADERS, 4 | end, stream, self.encoder.encode(fields))
        stream, status, fields, end, split = rest
        block = self.encoder.encode([(":status", status), *fields])
        if not split:
            return frame(HEADERS, 4 | end, stream, block)
        return frame(HEADERS, int(end), stream, block[:2]) + frame(
            CONTINUATION, 4, stream, block[2:]
        )


def seen(answer):
    """Return what a caller sees of an answer."""
    return (
        answer.status,
        tuple((bytes(n), bytes(v)) for n, v in answer.headers),
        b"".join(piece for piece, _ in answer.pieces),
        answer.complete,
        bool(answer.problem),
        answer.malformed,
        answer.refused,
    )


@given(st.lists(OPS, max_size=10))
@settings(max_examples=300, deadline=None)
def test_same_octets_same_answers(operations):
    both = Both()
    for operation in operations:
        before = [seen(answer) for answer in both.ours]
        open_before = [not answer.over for answer in both.ours]
        both.feed(both.octets(operation))
        if both.lean.problem.endswith("reset_of_idle"):
            return  # section 6.4 demands it; the package lets it pass
        if both.package.problem or any(answer.malformed for answer in both.ours):
            # The package ends the connection for every breach; the lean client for some only the answer it concerns.
            for ours, theirs, was, was_open in zip(
                both.ours, both.theirs, before, open_before, strict=True
            ):
                if was_open and ours.malformed and ours.size:
                    assert theirs.problem
                elif was_open and ours.malformed:
                    # The package lets a head pass that announces a body and ends the stream.
                    assert theirs.problem or ours.problem == "less than announced"
                elif not was_open:
                    assert seen(ours) == was
            return
        assert not both.lean.problem, both.lean.problem
        assert [seen(a) for a in both.ours] == [seen(a) for a in both.theirs]
        assert both.lean.leaving == both.package.leaving
        assert both.lean.open == both.package.open


@given(st.lists(OPS, max_size=8), st.data())
@settings(max_examples=100, deadline=None)
def test_any_chunking_means_the_same(operations, data):
    whole, cut = Both(), Both()
    octets = b"".join([whole.octets(operation) for operation in operations])
    whole.lean.receive(octets, 0.0)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(octets)), max_size=6)))
    for start, end in zip([0, *cuts], [*cuts, len(octets)], strict=True):
        cut.lean.receive(octets[start:end], 0.0)
    assert [seen(a) for a in cut.ours] == [seen(a) for a in whole.ours]
    assert cut.lean.problem == whole.lean.problem
    assert cut.lean.take() == whole.lean.take()


@given(st.lists(st.binary(max_size=100), max_size=5))
@settings(max_examples=300, deadline=None)
def test_noise_never_raises_and_ends_what_was_open(noise):
    both = Both()
    for octets in noise:
        both.lean.receive(frame(HEADERS, 5, 1, octets), 0.0)
        both.lean.receive(octets, 0.0)
    both.lean.end_of_connection()
    assert all(answer.over for answer in both.ours)
    assert both.lean.open == 0
