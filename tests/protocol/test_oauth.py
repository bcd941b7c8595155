"""OAuth on the wire: forms, scopes, redirects, PKCE and hashes, with the RFCs' own values."""

import json
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.protocol import oauth
from hub.protocol.oauth import FormFault

EXAMPLES = json.loads((Path(__file__).parents[1] / "vectors" / "rfc_examples.json").read_text())


@given(st.dictionaries(st.text(min_size=1), st.text(min_size=1), max_size=8))
def test_what_a_client_encodes_is_read_back(form):
    assert oauth.parse_form(urlencode(form).encode()) == form


@given(st.binary(max_size=200))
def test_no_octets_raise(octets):
    assert isinstance(oauth.parse_form(octets), dict | FormFault)


@pytest.mark.parametrize(
    "body",
    [
        b"a=1&a=2",
        b"a=1&b=2&%61=3",
        b"a=%zz",
        b"a=%f",
        b"a=%ff",
        "a=é".encode(),
        b"&".join([b"a"] * 65),
    ],
)
def test_ambiguous_and_broken_forms_are_refused(body):
    assert isinstance(oauth.parse_form(body), FormFault)


def test_members_without_a_value_count_as_absent():
    assert oauth.parse_form("a=&b&c=1&&") == {"c": "1"}


@pytest.mark.parametrize("text", ["", " ", "a  b", "a\tb", "a a", 'a"', "a\\", "é", None, 5, ["a"]])
def test_what_is_no_scope_is_refused(text):
    assert oauth.parse_scope(text) is None


def test_a_scope_keeps_its_order():
    assert oauth.parse_scope("openid accounts") == ("openid", "accounts")


def test_pkce_of_rfc_7636():
    example = EXAMPLES["rfc7636_appendix_b"]
    assert oauth.challenge_of(example["code_verifier"]) == example["code_challenge"]
    assert oauth.proves(example["code_verifier"], example["code_challenge"])


@pytest.mark.parametrize("verifier", ["", "v" * 42, "v" * 129, "v" * 43 + "=", "v" * 43 + "\n"])
def test_what_is_no_verifier_proves_nothing(verifier):
    assert not oauth.proves(verifier, oauth.challenge_of(verifier))


@pytest.mark.parametrize(
    "uri",
    ["https://tpp.example/cb?a=b", "https://a", "HTTPS://a/", "https://[::1]/", "http://127.0.0.1/cb", "http://[::1]:8080/", "http://127.0.0.1",
     "com.example.app:/cb", "com.example.app://cb"],
)  # fmt: skip
def test_a_browser_may_be_sent_to_https_to_itself_or_to_an_app(uri):
    assert oauth.is_redirect_uri(uri)


@pytest.mark.parametrize(
    "uri",
    ["http://tpp.example/cb", "http://127.0.0.1.evil.example/", "http://127.0.0.1@evil.example/", "http://localhost/cb",
     "https://tpp.example/cb#f", "https://tpp.example/c b", "https://tpp.example/cb\r\nx: y", "https://tpp.example/\u00e9",
     "javascript:alert(1)", "data:text/html,x", "https:", "https://", "//evil.example/", "/cb", "", "com.example.app", "HTTP://a/", "HTTP://127.0.0.1/"],
)  # fmt: skip
def test_a_browser_is_sent_nowhere_else(uri):
    assert not oauth.is_redirect_uri(uri)


def test_half_hashes_of_openid_connect():
    example = EXAMPLES["oidc_core_a4"]
    assert oauth.half_hash(example["access_token"]) == example["at_hash"]
    assert oauth.half_hash(example["code"]) == example["c_hash"]


def test_ath_of_rfc_9449():
    example = EXAMPLES["rfc9449"]
    assert oauth.token_hash(example["access_token"]) == example["ath"]


@given(st.text())
def test_a_redirect_keeps_its_query_and_carries_any_state(state):
    target = oauth.redirect_to("https://a.example/cb?x=1", [("state", state), ("iss", "https://b")])
    query = parse_qsl(urlsplit(target).query)
    assert query[0] == ("x", "1")
    assert dict(query).get("state", "") == state
    assert target.isascii()
    assert "\n" not in target


@given(st.text(max_size=200))
def test_a_description_holds_only_what_the_rfc_allows(text):
    shown = oauth.printable(text)
    assert all(" " <= char <= "~" and char not in '"\\' for char in shown)
    assert len(shown) <= 83


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "nothing"),
        ("a", "'a'"),
        (5, "5"),
        (True, "True"),
        ({}, "an object"),
        ([], "an array"),
    ],
)
def test_what_came_is_described(value, shown):
    assert oauth.show(value) == shown
