"""One exchange: what a body takes while it comes."""

import tracemalloc

import pytest

from hub.edge.exchange import Exchange
from hub.model.caller import Peer
from hub.model.http import Admission, Request
from hub.model.terms import Face
from tests.edge import rig

OCTETS = 50_000


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("piece", [b"x", b""])
async def test_a_body_in_tiny_pieces_takes_no_more_than_a_few_times_itself(stream, piece):
    request = Request(
        face=Face.TPP, method="POST", authority="", path="/", peer=Peer(address="192.0.2.1")
    )
    credited = 0

    def consume(_: int, octets: int) -> None:
        nonlocal credited
        credited += octets

    admission = Admission(limit=OCTETS, stream=stream)
    exchange = Exchange(1, request, admission, rig.limits(), consume, lambda _: True)
    tracemalloc.start()
    try:
        for _ in range(OCTETS):
            exchange.add(piece, 2)
        assert tracemalloc.get_traced_memory()[0] < 3 * OCTETS
    finally:
        tracemalloc.stop()
    exchange.finish()
    if stream:
        body = b""
        while (found := await exchange.piece()) is not None:
            body += found
    else:
        body = await exchange.complete()
    assert body == piece * OCTETS
    assert credited == 2 * OCTETS
