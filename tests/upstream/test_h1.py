"""The octets of requests and answers: what is written is exactly one request, what is read never depends on its pieces."""

from itertools import pairwise

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.upstream.h1 import LAST_CHUNK, AnswerReader, chunk, request_head


def read(pieces, header_most=65536, body_most=65536):
    reader = AnswerReader(header_most, body_most)
    for piece in pieces:
        if reader.problem:
            break
        reader.feed(piece)
    return reader


ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: a\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 404 Nope\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nx : y\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n folded\r\ncontent-length: 0\r\n\r\n",
]


@given(st.sampled_from(ANSWERS), st.lists(st.integers(0, 200), max_size=8))
def test_an_answer_means_the_same_in_whatever_pieces_it_comes(raw, cuts):
    edges = sorted({0, len(raw), *(c for c in cuts if c < len(raw))})
    pieces = [raw[a:b] for a, b in pairwise(edges)]
    whole, parts = read([raw]), read(pieces)
    assert bool(whole.problem) is bool(parts.problem)
    if not whole.problem:
        assert (parts.status, parts.headers, parts.take()) == (
            whole.status,
            whole.headers,
            whole.take(),
        )
        assert parts.complete
        assert parts.reusable


@given(st.binary(max_size=300))
def test_noise_never_raises(noise):
    reader = read([noise, b"HTTP/1.1 200 OK\r\n", noise])
    reader.end(clean=False)
    assert reader.problem or reader.complete


TOKEN = st.text("abc-XYZ09_!", min_size=1, max_size=12).map(str.encode)
NASTY = st.text("ab: \t\r\n\0\x7f,é", max_size=12).map(lambda s: s.encode("latin-1"))


class Seen:
    def __init__(self):
        self.requests = 0
        self.headers = []
        self.target = b""

    def on_message_begin(self):
        self.requests += 1

    def on_url(self, url):
        self.target += url

    def on_header(self, name, value):
        self.headers.append((name, value))


@given(
    st.sampled_from(["GET", "POST", "PATCH"]),
    st.text("abc/?=&%20\r\n #\0", max_size=20).map(lambda s: "/" + s),
    st.lists(st.tuples(st.one_of(TOKEN, NASTY), NASTY), max_size=5),
)
def test_what_is_written_is_exactly_one_request_or_nothing(method, target, headers):
    try:
        head = request_head(method, target, b"bank.example", tuple(headers), 0)
    except ValueError:
        return
    seen = Seen()
    httptools.HttpRequestParser(seen).feed_data(head)
    assert seen.requests == 1
    assert seen.target == target.encode()
    sent = [(n, v.strip(b" \t")) for n, v in headers if n not in {b"host", b"te"}]
    got = [(n, v.strip(b" \t")) for n, v in seen.headers if n not in {b"host", b"content-length"}]
    assert got == sent


@pytest.mark.parametrize(
    "headers",
    [
        ((b"x", b"a\r\ny: b"),),
        ((b"x", b"a\ny: b"),),
        ((b"x", b"a\0"),),
        ((b"x: y", b"a"),),
        ((b"", b"a"),),
        ((b"x\r\ny", b"a"),),
        ((b"x", b"a\n"), (b"y", b"b")),
        ((b"x", b"\n"),),
    ],
)
def test_a_header_that_would_become_two_is_never_written(headers):
    with pytest.raises(ValueError, match="fit for a request"):
        request_head("GET", "/", b"h", headers, 0)


@pytest.mark.parametrize("target", ["", "x", "/a b", "/a\r\nb", "/a#b", "/\x7f", "https://x/"])
def test_a_target_that_is_not_one_is_never_written(target):
    with pytest.raises(ValueError, match="fit for a request"):
        request_head("GET", target, b"h", (), 0)


def test_framing_is_decided_here_alone():
    theirs = ((b"content-length", b"99"), (b"transfer-encoding", b"chunked"), (b"host", b"evil"))
    head = request_head("POST", "/", b"bank", theirs, 3)
    assert head == b"POST / HTTP/1.1\r\nhost: bank\r\ncontent-length: 3\r\n\r\n"
    assert request_head("GET", "/", b"bank", (), 0).count(b"length") == 0
    assert chunk(b"abc") + LAST_CHUNK == b"3\r\nabc\r\n0\r\n\r\n"


def test_a_long_head_in_many_pieces_is_refused():
    pieces = [b"HTTP/1.1 200 OK\r\n"] + [b"x: " + b"a" * 1000 + b"\r\n"] * 100
    assert read(pieces).problem == "a head that is too long"
    assert read([b"HTTP/1.1 200 OK\r\n"] + [b"x: a\r\n"] * 200).problem == "too many headers"


CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"


@pytest.mark.parametrize("start", [b"0\r\nx: ", b"2;x="], ids=["trailer", "extension of a chunk"])
def test_what_comes_after_the_head_without_being_body_is_bounded(start):
    piece = b"y" * 1000
    assert not read([CHUNKED, start, *[piece] * 60]).problem
    assert read([CHUNKED, start, *[piece] * 80]).problem == "a trailer that is too long"
    assert read([CHUNKED, *[b"1;" + piece + b"\r\nx\r\n"] * 200, LAST_CHUNK]).complete


def test_a_trailer_is_not_a_header():
    reader = read([CHUNKED, b"0\r\nretry-after: 7\r\ncontent-type: b\r\n\r\n"])
    assert reader.complete
    assert dict(reader.headers)[b"content-type"] == b"a"
    assert b"retry-after" not in dict(reader.headers)
