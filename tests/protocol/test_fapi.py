"""The windows of signed messages, to the second; what FAPI leaves open is as the project decided."""

import pytest

from hub.protocol import fapi

NOW = 1_795_000_000


def assertion(**claims):
    merged = {"iat": NOW, "exp": NOW + 60, **claims}
    given = {name: value for name, value in merged.items() if value is not None}
    return fapi.wrong_assertion_window(given, NOW, lifetime=300, ahead=30)


def request(**claims):
    merged = {"nbf": NOW, "exp": NOW + 300, **claims}
    given = {name: value for name, value in merged.items() if value is not None}
    return fapi.wrong_request_window(given, NOW, lifetime=600, ahead=30)


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"exp": NOW + 0.5},
        {"exp": NOW + 300},
        {"iat": NOW + 30, "exp": NOW + 330},
        {"iat": None, "exp": NOW + 330},
        {"nbf": NOW + 30},
        {"iat": NOW - 240},
    ],
)
def test_an_assertion_in_its_window_is_taken(claims):
    assert assertion(**claims) is None


@pytest.mark.parametrize(
    ("name", "claims"),
    [
        ("exp", {"exp": None}),
        ("exp", {"exp": NOW}),
        ("exp", {"exp": NOW + 301}),
        ("exp", {"iat": None, "exp": NOW + 331}),
        ("exp", {"iat": NOW - 300, "exp": NOW + 1}),
        ("iat", {"iat": NOW + 31}),
        ("nbf", {"nbf": NOW + 31}),
    ],
)
def test_an_assertion_outside_of_its_window_is_refused_by_the_claim_to_blame(name, claims):
    assert assertion(**claims).startswith(f"{name}: expected")


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"nbf": NOW + 30, "exp": NOW + 630},
        {"nbf": NOW - 599, "exp": NOW + 1},
        {"nbf": NOW - 599.5, "exp": NOW + 0.5},
    ],
)
def test_a_request_object_in_its_window_is_taken(claims):
    assert request(**claims) is None


@pytest.mark.parametrize(
    ("name", "claims"),
    [
        ("nbf", {"nbf": None}),
        ("exp", {"exp": None}),
        ("exp", {"exp": NOW}),
        ("exp", {"exp": NOW + 601}),
        ("nbf", {"nbf": NOW + 31}),
        ("nbf", {"nbf": NOW - 601, "exp": NOW + 1}),
        ("exp", {"nbf": NOW - 600, "exp": NOW + 1}),
    ],
)
def test_a_request_object_outside_of_its_window_is_refused_by_the_claim_to_blame(name, claims):
    assert request(**claims).startswith(f"{name}: expected")


@pytest.mark.parametrize(
    ("typ", "good"),
    [("JWT", True), ("jwt", True), ("application/jwt", True), ("client-authentication+jwt", True),
     ("at+jwt", False), ("dpop+jwt", False), ("oauth-authz-req+jwt", False), ("JWT ", False)],
)  # fmt: skip
def test_an_explicit_type_is_of_the_place_or_refused(typ, good):
    assert (fapi.wrong_type({"typ": typ}, fapi.ASSERTION_TYPES) is None) is good
    assert fapi.wrong_type({}, fapi.ASSERTION_TYPES) is None
