"""Templates to handlers: literal before parameter, 404 and 405, HEAD, fallback, admissions."""

import pytest

from hub.edge.router import Router, path_parameters
from hub.model.http import Admission, Request, Response
from hub.model.terms import Face


def handler(name: str):
    async def answer(request: Request) -> Response:
        return Response(status=200, body=name.encode())

    return answer


def request(method: str, path: str) -> Request:
    return Request(face=Face.TPP, method=method, authority="h", path=path)


ROUTER = Router(
    {
        ("GET", "/consents"): handler("list"),
        ("GET", "/consents/{consentId}"): handler("one"),
        ("PATCH", "/consents/{consentId}"): handler("patch"),
        ("GET", "/consents/groups"): handler("groups"),
        ("GET", "/consents/groups/{groupId}/x"): handler("deep"),
        ("GET", "/consents/{consentId}/y"): handler("y"),
    },
    admissions={("PATCH", "/consents/{consentId}"): Admission(limit=7)},
)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/consents", b"list"),
        ("/consents/1", b"one"),
        ("/consents/groups", b"groups"),
        ("/consents/groups/1/x", b"deep"),
        ("/consents/groups/y", b"y"),
    ],
)
async def test_path_finds_its_handler(path, name):
    assert (await ROUTER.respond(request("GET", path))).body == name


@pytest.mark.parametrize(
    "path", ["/", "/consent", "/consents/", "/consents/1/z", "/consents/1/y/z", "/Consents"]
)
async def test_unknown_path_is_404(path):
    refused = ROUTER.admit(request("GET", path))
    assert isinstance(refused, Response)
    assert refused.status == 404


async def test_wrong_method_is_405_and_says_which_are_right():
    refused = ROUTER.admit(request("POST", "/consents/1"))
    assert isinstance(refused, Response)
    assert (refused.status, refused.headers) == (405, ((b"allow", b"GET, HEAD, OPTIONS, PATCH"),))
    asked = ROUTER.admit(request("OPTIONS", "/consents/1"))
    assert isinstance(asked, Response)
    assert asked.status == 204


async def test_head_is_answered_by_get():
    assert (await ROUTER.respond(request("HEAD", "/consents"))).body == b"list"


def test_admission_is_the_routes_own():
    assert ROUTER.admit(request("PATCH", "/consents/1")) == Admission(limit=7)
    assert ROUTER.admit(request("GET", "/consents/1")) == Admission()


async def test_fallback_gets_unknown_paths_but_not_wrong_methods():
    outer = Router({("GET", "/a"): handler("a")}, fallback=ROUTER)
    assert (await outer.respond(request("GET", "/consents"))).body == b"list"
    refused = outer.admit(request("POST", "/a"))
    assert isinstance(refused, Response)
    assert refused.status == 405


def test_admission_without_a_route_is_a_mistake():
    with pytest.raises(ValueError, match="without a route"):
        Router({}, admissions={("GET", "/a"): Admission()})


def test_parameters_are_decoded_once():
    assert path_parameters("/a/{x}/b", "/a/1%2520%3A/b") == {"x": "1%20:"}
    assert path_parameters("/a/{x}", "/b/1") is None
    assert path_parameters("/a/{x}", "/a/1/2") is None
    assert path_parameters("/a/{x}", "/a/") is None
