"""HTTP/1.1 over real sockets: bodies both ways, refusals that arrive although the client still sends."""

import trio
import trio.testing

from hub.edge import listener
from hub.edge.connection import Connection
from hub.edge.router import Router
from hub.model.http import Admission, Request, Response
from tests.edge import rig
from tests.waiting import until

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"


async def mirror(request: Request) -> Response:
    assert request.stream is not None
    return Response(status=200, stream=request.stream)


async def test_chunked_body_is_streamed_through():
    app = Router({("POST", "/"): mirror}, admissions={("POST", "/"): Admission(stream=True)})
    async with rig.listening(app, tls=False) as place:
        got = await rig.http1(
            place.port,
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        )
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert body.endswith(b"0\r\n\r\n")
    assert b"hello" in body
    assert b" world" in body


async def test_refusal_arrives_although_the_client_goes_on_sending():
    app = Router({("POST", "/"): rig.echo}, admissions={("POST", "/"): Admission(limit=10)})
    async with rig.listening(app, tls=False) as place:
        got = await rig.http1(place.port, HEAD + b"Content-Length: 300000\r\n\r\n" + bytes(300_000))
    assert got.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in got
    assert place.notebook.answers[0][1].status == 413


async def test_expecting_client_is_refused_before_it_sends():
    app = Router({("POST", "/"): rig.echo}, admissions={("POST", "/"): Admission(limit=10)})
    async with rig.listening(app, tls=False) as place:
        got = await rig.http1(
            place.port, HEAD + b"Expect: 100-continue\r\nContent-Length: 300000\r\n\r\n"
        )
    assert got.startswith(b"HTTP/1.1 413 ")


async def test_thousand_pipelined_requests_get_their_own_answers_in_order():
    one = b"GET /things/%d HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /things/last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    async with rig.listening(rig.echo_router(), tls=False) as place:
        got = await rig.http1(place.port, b"".join(one % n for n in range(1000)) + last)
    places = [got.index(b'"/things/%d"' % n) for n in range(1000)]
    assert places == sorted(places)
    assert got.count(b"HTTP/1.1 200 OK\r\n") == 1001


async def test_head_over_the_wire_has_length_and_no_body():
    async with rig.listening(rig.echo_router(), tls=False) as place:
        got = await rig.http1(
            place.port, b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
    assert got.endswith(b"\r\n\r\n")
    assert b"content-length: 0" not in got


async def test_health_check_in_http_1_0_without_host_is_answered():
    async with rig.listening(rig.echo_router(), tls=False) as place:
        got = await rig.http1(place.port, b"GET / HTTP/1.0\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 200 ")


async def test_a_request_sent_ahead_is_not_begun_once_its_caller_has_left(monkeypatch):
    begun, asked, go_on, made = trio.Event(), 0, trio.Event(), []

    def remembered(*given: object) -> Connection:
        made.append(Connection(*given))
        return made[-1]

    monkeypatch.setattr(listener, "Connection", remembered)

    async def pay(request: Request) -> Response:
        begun.set()
        await go_on.wait()
        return Response(status=201)

    async def count(request: Request) -> Response:
        nonlocal asked
        asked += 1
        return Response(status=200)

    app = Router(
        {("POST", "/pay"): pay, ("GET", "/"): count},
        admissions={("POST", "/pay"): Admission(cancel_with_caller=False)},
    )
    async with rig.listening(app, tls=False, connections_per_address=1) as place:
        async with await trio.open_tcp_stream("127.0.0.1", place.port) as stream:
            head = b" HTTP/1.1\r\nHost: h\r\n"
            await stream.send_all(b"POST /pay" + head + b"Content-Length: 0\r\n\r\n")
            await begun.wait()
            await stream.send_all((b"GET /" + head + b"\r\n") * 5)
        await until(lambda: made[0]._lost, 5, "the end of the connection")
        go_on.set()
        await until(lambda: place.notebook.answers, 5, "the payment's end")
        await trio.testing.wait_all_tasks_blocked()
    assert asked == 0
