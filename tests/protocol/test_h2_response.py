"""The header block of an answer: what is remembered reads the same, stays few, and is never a secret."""

import pytest
from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st

from hub.protocol import h2_response
from hub.protocol.h2_response import answer_block
from hub.protocol.hpack import encode

NAMES = st.sampled_from(
    [b"content-type", b"date", b"content-length", b"x-fapi-interaction-id", b"set-cookie", b"location", b"x-own"]
)  # fmt: skip
FIELDS = st.lists(st.tuples(NAMES, st.text("ab 1;=/", max_size=120).map(str.encode)), max_size=6)


@given(st.sampled_from([200, 204, 302, 404, 503]), FIELDS)
def test_a_block_reads_as_it_was_meant_the_second_time_too(status, fields):
    plain = encode(((b":status", b"%d" % status), *fields))
    for _ in range(2):
        block = answer_block(status, tuple(fields))
        assert block == plain
        assert Decoder().decode(block, raw=True) == [(b":status", b"%d" % status), *fields]


def test_secrets_and_identities_are_not_remembered():
    secret = (
        (b"set-cookie", b"a=secret"),
        (b"location", b"/?code=secret"),
        (b"x-fapi-interaction-id", b"secret"),
        (b"dpop-nonce", b"secret"),
        (b"content-type", b"secret" * 20),
    )
    answer_block(200, secret)
    assert not set(secret) & h2_response._WRITTEN.keys()


def test_the_memory_is_bounded():
    for size in range(h2_response._REMEMBERED_MOST * 2 + 5):
        answer_block(200, ((b"content-length", b"%d" % size),))
        assert len(h2_response._WRITTEN) <= h2_response._REMEMBERED_MOST


@pytest.mark.parametrize(
    "field",
    [(b"date", b"a\r\nb: c"), (b"x-fapi-interaction-id", b"a\n"), (b"Date", b"a"), (b":status", b"200"), (b"a", b"\0")],
)  # fmt: skip
def test_a_field_that_would_split_the_answer_is_refused_every_time(field):
    for _ in range(2):
        with pytest.raises(ValueError, match="an answer's field"):
            answer_block(200, ((b"content-type", b"a/b"), field))
