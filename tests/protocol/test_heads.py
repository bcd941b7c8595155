"""The normal form of paths and the rules of a head: one way to write each request, or a refusal."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.protocol import heads
from hub.protocol.heads import (
    check_answer,
    check_fields,
    connection_bound,
    normal_path,
    read_head,
)
from hub.protocol.message import Head, Refusal

GOOD = [
    "/", "/a", "/a/", "/a/b.c/d-e_f~g", "/open-finance/account-information/v2.1/accounts/1234", "/a:b@c", "/.well-known/x",
    "/a%20b", "/a%3Ab", "/a%3ab", "/%D8%A7", "/...", "/a..b", "/..a", "/a,b=c&d", "/a(b)", "/a!$'*+",
]  # fmt: skip
BAD = [
    "", "a", "*", "//", "/a//b", "//a", "/.", "/..", "/./a", "/a/..", "/a/../b", "/a/./b", "/a/.", "/a;b", "/..;/a", "/a;",
    "/a%2fb", "/a%2Fb", "/a%5cb", "/a%5Cb", "/a\\b", "/%2e%2e/a", "/%2E", "/a%2e", "/%2e./a", "/.%2e/a", "/a%00b", "/a%0ab",
    "/a%0D", "/a%7f", "/a%41", "/a%7E", "/a%5f", "/a%2D", "/a%30", "/a%", "/a%2", "/a%zz", "/a%%41", "/a b", "/a\tb", "/a\0b",
    "/a\r\nb", "/a#b", "/a<b>", '/a"b', "/a{b}", "/a|b", "/a^b", "/a`b", "/a[b]", "/\xe9", "/%ff", "/%C0%AF", "/%ED%A0%80",
    "/a%1", "http://h/", "https://localhost/a", "/a%2f..", "/a%252f%2e", "/\u202e", "/a%09", "/a%1F",
]  # fmt: skip


@pytest.mark.parametrize("path", GOOD)
def test_normal_path_is_accepted(path):
    assert normal_path(path)


@pytest.mark.parametrize("path", BAD)
def test_any_other_spelling_is_refused(path):
    assert not normal_path(path)


@given(st.text(max_size=30))
@settings(max_examples=300, deadline=None)
def test_accepted_paths_have_no_other_reading(text):
    path = "/" + text
    if normal_path(path):
        assert path.isascii()
        assert "//" not in path
        assert {".", ".."}.isdisjoint(path.split("/"))


@pytest.mark.parametrize(
    "authority",
    [b"", b"a@b", b"a b", b"a/b", b"[::1", b"a:b", b"a:123456", b"a,b", b"-a", b"a\xe9"],
)
def test_odd_authority_is_refused(authority):
    found = read_head(b"GET", b"/", None, [(b"host", authority)])
    assert isinstance(found, Refusal)


@pytest.mark.parametrize(
    "authority", [b"Localhost:8443", b"127.0.0.1", b"[::1]:80", b"as1.bank.example"]
)
def test_authority_is_lowered(authority):
    found = read_head(b"GET", b"/", None, [(b"host", authority)])
    assert isinstance(found, Head)
    assert found.authority == authority.decode().lower()


@pytest.mark.parametrize("query", [b"a=b&c=%2F", b"", b"x?y", b"{a}|b"])
def test_query_stays_raw(query):
    found = read_head(b"GET", b"/?" + query, b"h", [])
    assert isinstance(found, Head)
    assert found.query == query.decode()


@pytest.mark.parametrize("query", [b"a b", b"a\0", b"a#b", b"a\xff"])
def test_odd_query_is_refused(query):
    assert isinstance(read_head(b"GET", b"/?" + query, b"h", []), Refusal)


@pytest.mark.parametrize("value", [b"-1", b"+1", b"1,1", b"0x1", b"", b"1 ", b"9" * 16, b"\xb2"])
def test_odd_content_length_is_refused(value):
    found = read_head(b"POST", b"/", b"h", [(b"content-length", value)])
    assert isinstance(found, Refusal)
    assert found.malformed


def test_expectation_other_than_continue_fails():
    found = read_head(b"POST", b"/", b"h", [(b"expect", b"lunch")])
    assert isinstance(found, Refusal)
    assert found.status == 417


@pytest.mark.parametrize(
    "field",
    [(b"a b", b"c"), (b"A", b"c"), (b"", b"c"), (b"a", b"b\nc"), (b"a", b"\x7f"), (b"a", b"b ")],
)
def test_odd_field_is_refused(field):
    assert check_fields([field])


@pytest.mark.parametrize(
    "field", [(b"x", b"a\r\nb: c"), (b"x", b"a\0"), (b"X", b"a"), (b"a\r", b"b")]
)
def test_answer_cannot_be_split(field):
    with pytest.raises(ValueError, match="an answer's field"):
        check_answer((field,))


NAMES = [
    b"host",
    b"content-length",
    b"content-type",
    b"authorization",
    b"expect",
    b"te",
    b"cookie",
    b"x-own",
    b"a b",
]
VALUES = [b"h", b"H", b"5", b"0", b"-1", b"100-Continue", b"trailers", b"lunch", b"", b" a", b"a\t", b"a\n", b"\xff"]  # fmt: skip


def by_each_rule(authority, fields):
    """Judge field by field, as the rules are written: what is not malformed, then what is said of the first fault."""
    for name, value in fields:
        if name == b"a b":
            return "field_name"
        if value[:1] in {b" ", b"\t"} or value[-1:] in {b" ", b"\t"}:
            return "field_value"
    if any(b"\n" in value for _, value in fields):
        return "field_value"
    seen = []
    for name, value in fields:
        if name in {b"host", b"content-length", b"content-type", b"authorization"}:
            if name in seen:
                return f"duplicate_{name.decode()}"
            seen.append(name)
        if name == b"content-length" and not value.isdigit():
            return "content_length"
        if name == b"expect" and value.lower() != b"100-continue":
            return "expect"
    host = dict(fields).get(b"host")
    if authority is not None and host is not None and authority.lower() != host.lower():
        return "host_differs"
    named = authority if authority is not None else host
    if named is None:
        return "host_missing"
    return "" if named.lower() in {b"h", b"5", b"0", b"lunch", b"trailers", b"100-continue"} else "authority"  # fmt: skip


@given(
    st.sampled_from([None, b"h", b"lunch"]),
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=5),
)
def test_all_fields_at_once_are_judged_as_one_by_one(authority, fields):
    fault = check_fields(fields)
    if not fault:
        found = read_head(b"GET", b"/a", authority, fields)
        fault = found.reason if isinstance(found, Refusal) else ""
        if isinstance(found, Head):
            length = dict(fields).get(b"content-length")
            assert found.headers == tuple(fields)
            assert found.content_length == (None if length is None else int(length))
            assert found.expects_continue == (b"expect" in dict(fields))
    assert fault == by_each_rule(authority, fields)


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=4))
def test_fields_of_the_connection_are_found_wherever_they_are(fields):
    assert connection_bound([*fields, (b"upgrade", b"h")])
    assert connection_bound(fields) == any(n == b"te" and v != b"trailers" for n, v in fields)


def test_a_path_remembered_for_one_method_is_judged_anew_for_another():
    for _ in range(2):
        assert isinstance(read_head(b"GET", b"/same", b"h", []), Head)
        assert isinstance(read_head(b"CONNECT", b"/same", b"h", []), Refusal)
        assert read_head(b"GET", b"/other/../same", b"h", []) == Refusal(400, "path")


def test_neither_queries_nor_long_paths_nor_long_methods_are_remembered():
    before = heads._remembered.cache_info()
    read_head(b"GET", b"/authorize?request_uri=secret", b"h", [])
    read_head(b"GET", b"/" + b"a" * 256, b"h", [])
    assert read_head(b"A" * 30_000, b"/a", b"h", []) == Refusal(400, "method")
    assert heads._remembered.cache_info() == before
    assert before.maxsize == 1024
