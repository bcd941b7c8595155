"""A long body in pieces, both ways at once, takes no memory that grows with it."""

import tracemalloc

import trio

from hub.edge.router import Router
from hub.model.http import Admission, Request, Response
from tests.edge import rig

OCTETS = 10_000_000
PIECE = 16_384


async def test_ten_megabytes_each_way_pass_in_less_than_one():
    async def mirror(request: Request) -> Response:
        async def pieces():
            async for piece in request.stream:
                yield piece

        return Response(status=200, stream=pieces())

    router = Router(
        {("POST", "/mirror"): mirror, ("GET", "/"): rig.echo},
        admissions={("POST", "/mirror"): Admission(limit=OCTETS, stream=True)},
    )
    async with rig.listening(router) as place, rig.h2_client(place) as client:
        await client.answer(await client.open())
        number = await client.open("POST", "/mirror", end=False)
        sent = received = 0
        tracemalloc.start()
        try:
            while received < OCTETS:
                while sent < OCTETS and (room := client.h2.local_flow_control_window(number)):
                    size = min(room, PIECE, OCTETS - sent)
                    client.h2.send_data(number, bytes(size), end_stream=sent + size == OCTETS)
                    sent += size
                    await client.flush()
                client.events.clear()
                with trio.fail_after(20):
                    assert await client.receive()
                received += sum(len(getattr(event, "data", b"")) for event in client.events)
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert received == OCTETS
    assert most < 1_000_000, "with what the client holds of it"
