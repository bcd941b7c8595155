"""The normal form of paths and the rules of a head: one way to write each request, or a refusal."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.protocol.message import Head, Refusal, check_answer, check_fields, normal_path, read_head

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
