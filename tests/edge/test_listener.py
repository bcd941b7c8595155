"""The listener over real sockets: TLS, both HTTP versions, limits, draining."""

# ruff: noqa: SIM117 - a client inside its listener reads better nested

from functools import partial

import msgspec
import pytest
import trio

from hub.config import Listen
from hub.edge.listener import _ENGINES, Drain, bind, caller_of, counted_as, serve
from hub.edge.router import Router
from hub.model.http import Admission, Request, Response
from hub.model.terms import Face
from tests.edge import rig

ENGINES = sorted(_ENGINES)


@pytest.fixture(params=ENGINES)
def engine(request):
    return request.param


async def test_http2_request_is_answered_with_the_callers_certificate_known(engine):
    async with rig.listening(rig.echo_router(), engine=engine) as place:
        async with rig.h2_client(place) as client:
            status, fields, body = await client.answer(await client.open("GET", "/things/7?a=b"))
    assert status == 200
    assert fields[b"date"] == b"Tue, 14 Nov 2023 22:13:20 GMT"
    told = msgspec.json.decode(body)
    assert (told["path"], told["query"], told["authority"]) == ("/things/7", "a=b", "localhost")
    assert told["certificate"]
    assert place.notebook.answers[0][1].status == 200


async def test_continue_is_sent_to_those_who_wait_for_it_only(engine):
    async with rig.listening(rig.echo_router(), engine=engine) as place:
        async with rig.h2_client(place) as client:
            await client.answer(await client.open())
            assert not [
                e for e in client.events if type(e).__name__ == "InformationalResponseReceived"
            ]
            number = await client.open("POST", "/", ("expect", "100-continue"), end=False)
            await client.until(lambda e: type(e).__name__ == "InformationalResponseReceived")
            client.h2.send_data(number, b"body", end_stream=True)
            await client.flush()
            assert (await client.answer(number))[0] == 200


async def test_caller_without_certificate_is_served_and_known_as_nobody(engine):
    async with rig.listening(rig.echo_router(), engine=engine) as place:
        async with rig.h2_client(place, certificate=False) as client:
            status, _, body = await client.answer(await client.open())
    assert status == 200
    assert not msgspec.json.decode(body)["certificate"]


async def test_certificate_of_another_authority_is_refused_and_noted(engine):
    async with rig.listening(rig.echo_router(), engine=engine) as place:
        context = rig.client_context("h2", issuer=rig.papers().authority)
        stream = await rig.tls_stream(place.port, context)
        assert await rig.read_all(stream) == b""
        await trio.aclose_forcefully(stream)
    (reason,) = place.notebook.reasons("handshake_refused")
    assert reason in {
        "unable_to_get_local_issuer_certificate",
        "self-signed_certificate_in_certificate_chain",
    }


async def test_http1_over_tls_answers_in_order_on_one_connection():
    async with rig.listening(rig.echo_router()) as place:
        stream = await rig.tls_stream(place.port, rig.client_context("http/1.1"))
        await stream.send_all(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi"
            b"GET /things/2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        got = await rig.read_all(stream)
        await trio.aclose_forcefully(stream)
    assert got.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert got.index(b'"body":"hi"') < got.index(b'"path":"/things/2"')


async def test_plain_listener_refuses_the_http2_preface():
    async with rig.listening(rig.echo_router(), tls=False) as place:
        got = await rig.http1(place.port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert got.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 505 "))


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
async def test_curl_speaks_with_the_listener(engine, version, tmp_path):
    issued = rig.papers().clients.issue_cert("tpp@example.test", common_name="tpp")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    rig.papers().authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with rig.listening(rig.echo_router(), engine=engine) as place:
        done = await trio.run_process(
            [
                "curl", "-sS", version, "--cacert", tmp_path / "ca.pem", "--cert", tmp_path / "client.pem",
                "-w", "%{http_version}", "--data-binary", "@-", f"https://localhost:{place.port}/",
            ],
            stdin=b"x" * 300_000,
            capture_stdout=True,
        )  # fmt: skip
    assert done.stdout.endswith(version[6:].encode())
    assert b"x" * 300_000 in done.stdout


async def test_nghttp_speaks_with_the_listener(engine, tmp_path):
    issued = rig.papers().clients.issue_cert("tpp@example.test", common_name="tpp")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    (tmp_path / "body").write_bytes(b"x" * 300_000)
    async with rig.listening(rig.echo_router(), engine=engine) as place:
        done = await trio.run_process(
            [
                "nghttp", "-v", "--no-verify-peer", "--cert", tmp_path / "cert.pem", "--key", tmp_path / "key.pem",
                "-d", tmp_path / "body", "-H", ":method: POST", f"https://localhost:{place.port}/",
            ],
            capture_stdout=True,
        )  # fmt: skip
    told = done.stdout.decode(errors="replace")
    assert ":status: 200" in told
    assert "GOAWAY" not in told.replace("send GOAWAY", "")
    assert place.notebook.answers[0][0].peer.present
    assert len(place.notebook.answers[0][1].body) >= 300_000


async def test_nghttp_without_a_compression_table_reads_the_answer(engine):
    async with rig.listening(rig.echo_router(), engine=engine) as place:
        done = await trio.run_process(
            ["nghttp", "-v", "--no-verify-peer", "--header-table-size=0", f"https://localhost:{place.port}/"],
            capture_stdout=True,
        )  # fmt: skip
    told = done.stdout.decode(errors="replace")
    assert ":status: 200" in told
    assert "COMPRESSION_ERROR" not in told


async def test_h2load_gets_every_answer(engine):
    async with rig.listening(rig.echo_router(), engine=engine) as place:
        done = await trio.run_process(
            ["h2load", "-n", "600", "-c", "6", "-m", "20", f"https://localhost:{place.port}/"],
            capture_stdout=True,
        )
    told = done.stdout.decode()
    assert "600 succeeded, 0 failed, 0 errored, 0 timeout" in told
    assert "status codes: 600 2xx" in told
    assert len(place.notebook.answers) == 600


async def test_ten_megabytes_are_echoed_as_a_stream_both_ways(engine):
    async def mirror(request: Request) -> Response:
        assert request.stream is not None
        return Response(status=200, stream=request.stream)

    app = Router(
        {("POST", "/"): mirror},
        admissions={("POST", "/"): Admission(limit=20_000_000, stream=True)},
    )
    sent = 0
    async with rig.listening(app, engine=engine) as place, rig.h2_client(place) as client:
        number = await client.open("POST", "/", end=False)
        while sent < 10_000_000:
            room = min(client.h2.local_flow_control_window(number), 16384)
            if room:
                client.h2.send_data(number, bytes(room))
                sent += room
                await client.flush()
            else:
                await client.receive()
        client.h2.end_stream(number)
        await client.flush()
        status, _, body = await client.answer(number)
    assert (status, len(body)) == (200, sent)


async def test_body_beyond_the_admission_is_refused_before_and_while_it_comes(engine):
    app = Router({("POST", "/"): rig.echo}, admissions={("POST", "/"): Admission(limit=10)})
    async with rig.listening(app, engine=engine) as place, rig.h2_client(place) as client:
        announced = await client.open("POST", "/", ("content-length", "11"), end=False)
        assert (await client.answer(announced))[0] == 413
        coming = await client.open("POST", "/", end=False)
        client.h2.send_data(coming, bytes(11))
        await client.flush()
        assert (await client.answer(coming))[0] == 413


async def test_late_data_after_an_early_answer_leaves_the_connection_usable(engine):
    async with (
        rig.listening(rig.echo_router(), engine=engine) as place,
        rig.h2_client(place) as client,
    ):
        early = await client.open("POST", "/nowhere", end=False)
        await client.until(lambda e: type(e).__name__ == "ResponseReceived")
        frame = bytes((0, 0, 3, 0, 0)) + early.to_bytes(4) + b"abc"
        await client.stream.send_all(frame)
        status, _, _ = await client.answer(await client.open())
    assert status == 200
    assert client.answered(early)[0] == 404


async def test_handler_that_raises_costs_one_500(engine):
    async def bug(request: Request) -> Response:
        raise ZeroDivisionError

    app = Router({("GET", "/bug"): bug, ("GET", "/"): rig.echo})
    async with rig.listening(app, engine=engine) as place, rig.h2_client(place) as client:
        assert (await client.answer(await client.open("GET", "/bug")))[0] == 500
        assert (await client.answer(await client.open()))[0] == 200
    assert place.notebook.reasons("stream_failed") == ["ZeroDivisionError"]


async def test_handler_is_cancelled_when_its_caller_resets_the_stream(engine):
    started, cancelled = trio.Event(), trio.Event()

    async def slow(request: Request) -> Response:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    app = Router({("GET", "/"): slow})
    async with rig.listening(app, engine=engine) as place, rig.h2_client(place) as client:
        number = await client.open()
        with trio.fail_after(5):
            await started.wait()
            client.h2.reset_stream(number)
            await client.flush()
            await cancelled.wait()


async def test_payment_finishes_though_its_caller_has_left(engine):
    started, proceed, done = trio.Event(), trio.Event(), trio.Event()

    async def pay(request: Request) -> Response:
        started.set()
        await proceed.wait()
        done.set()
        return Response(status=201)

    app = Router(
        {("POST", "/"): pay}, admissions={("POST", "/"): Admission(cancel_with_caller=False)}
    )
    async with rig.listening(app, engine=engine) as place:
        async with rig.h2_client(place) as client:
            await client.open("POST", "/")
            await started.wait()
        proceed.set()
        with trio.fail_after(5):
            await done.wait()


async def test_drain_answers_what_was_started_and_refuses_nothing_before(engine):
    started, proceed = trio.Event(), trio.Event()

    async def slow(request: Request) -> Response:
        started.set()
        await proceed.wait()
        return Response(status=200, body=b"done")

    app = Router({("GET", "/slow"): slow, ("GET", "/"): rig.echo})
    async with rig.listening(app, engine=engine) as place, rig.h2_client(place) as client:
        number = await client.open("GET", "/slow")
        await started.wait()
        place.drain.start()
        frames = rig.Frames(client.stream)
        first = await frames.until(7)
        assert first[9:17] == (2**31 - 1).to_bytes(4) + bytes(4)
        ping = await frames.until(6)
        await client.stream.send_all(ping[:4] + b"\1" + ping[5:])
        last = await frames.until(7)
        assert last[9:17] == number.to_bytes(4) + bytes(4)
        proceed.set()
        data = await frames.until(0)
        assert (data[9:], data[4] & 1) == (b"done", 1)
        assert await rig.read_all(client.stream) == b""
        with pytest.raises(OSError):
            await trio.open_tcp_stream("127.0.0.1", place.port)


async def test_all_that_the_kernel_has_connected_before_a_drain_are_served(nursery):
    count = 150
    listening, drain = bind(Listen(port=0)), Drain()
    port = listening.getsockname()[1]
    streams = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(count)]
    for stream in streams:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    drain.start()
    nursery.start_soon(
        partial(
            serve, listen=Listen(port=0), face=Face.TPP, app=rig.echo_router(), limits=rig.limits(), observer=rig.Notebook(),
            tls=None, listening=listening, drain=drain,
        )
    )  # fmt: skip
    answers = [await rig.read_all(stream) for stream in streams]
    for stream in streams:
        await stream.aclose()
    assert sum(answer.startswith(b"HTTP/1.1 200 ") for answer in answers) == count


async def test_a_caller_over_a_mapped_address_is_known_by_its_own(nursery):
    seen = []

    async def tell(request: Request) -> Response:
        seen.append(request.peer.address)
        return Response(status=204)

    place, notebook = Listen(bind="::", port=0), rig.Notebook()
    port = await nursery.start(
        partial(
            serve, listen=place, face=Face.TPP, app=Router({("GET", "/"): tell}), limits=rig.limits(connections_per_address=1),
            observer=notebook, tls=None,
        )
    )  # fmt: skip
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    for address in ("127.0.0.1", "::1"):
        async with await trio.open_tcp_stream(address, port) as stream:
            await stream.send_all(request)
            assert await rig.read_all(stream)
    assert seen == ["127.0.0.1", "::1"]
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("given", "caller", "counted"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::1%eth0", "fe80::/64"),
    ],
)
def test_addresses_of_one_network_that_one_host_has_are_counted_as_one(given, caller, counted):
    assert caller_of(given) == caller
    assert counted_as(caller) == counted


async def test_idle_http1_connection_is_closed_by_a_drain():
    async with rig.listening(rig.echo_router(), tls=False) as place:
        async with await trio.open_tcp_stream("127.0.0.1", place.port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await stream.receive_some(65536)
            place.drain.start()
            assert await rig.read_all(stream) == b""


async def test_connections_beyond_the_address_limit_are_closed_and_noted():
    async with rig.listening(rig.echo_router(), tls=False, connections_per_address=2) as place:
        streams = [await trio.open_tcp_stream("127.0.0.1", place.port) for _ in range(3)]
        assert await rig.read_all(streams[2]) == b""
        for stream in streams:
            await trio.aclose_forcefully(stream)
    assert place.notebook.reasons("connection_refused") == ["connections_per_address"]


async def test_request_for_another_authority_is_misdirected(engine):
    async with rig.listening(rig.echo_router(), engine=engine, hosts=("hub.example",)) as place:
        async with rig.h2_client(place) as client:
            assert (await client.answer(await client.open()))[0] == 421


async def test_a_host_may_be_configured_in_capitals(engine):
    async with rig.listening(rig.echo_router(), engine=engine, hosts=("LocalHost",)) as place:
        async with rig.h2_client(place) as client:
            assert (await client.answer(await client.open()))[0] == 200


async def test_new_certificate_serves_new_connections_and_a_bad_one_changes_nothing():
    made = rig.papers()
    async with rig.listening(rig.echo_router()) as place:
        before = await rig.tls_stream(place.port, rig.client_context("h2"))
        rig.renew(made)
        assert place.tls.reload() == ""
        after = await rig.tls_stream(place.port, rig.client_context("h2"))
        assert before.getpeercert(True) != after.getpeercert(True)
        good = made.key.read_bytes()
        made.key.write_text("nonsense")
        assert "server.pem" in place.tls.reload()
        made.key.write_bytes(good)
        third = await rig.tls_stream(place.port, rig.client_context("h2"))
        assert third.getpeercert(True) == after.getpeercert(True)
        for stream in (before, after, third):
            await trio.aclose_forcefully(stream)


def test_openssl_sees_only_the_fapi_suites():
    context = rig.ServerTls(rig.papers().certificate, rig.papers().key).context
    names = {c["name"] for c in context.get_ciphers() if c["protocol"] == "TLSv1.2"}
    assert names == {
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
    }


async def test_answer_that_would_be_split_costs_a_500(engine):
    async def reflect(request: Request) -> Response:
        return Response(status=303, headers=((b"location", b"x\r\nset-cookie: a=b"),))

    async with rig.listening(Router({("GET", "/"): reflect}), engine=engine) as place:
        async with rig.h2_client(place) as client:
            status, fields, _ = await client.answer(await client.open())
    assert status == 500
    assert b"set-cookie" not in fields
    assert place.notebook.reasons("stream_failed") == ["ValueError"]


async def test_head_of_a_streamed_answer_has_no_body_and_closes_the_stream(engine):
    closed = []

    async def streamed(request: Request) -> Response:
        async def pieces():
            try:
                yield b"never"
            finally:
                closed.append(True)

        stream = pieces()
        await stream.__anext__()
        return Response(status=200, stream=stream)

    async with rig.listening(Router({("GET", "/"): streamed}), engine=engine) as place:
        async with rig.h2_client(place) as client:
            status, _, body = await client.answer(await client.open("HEAD"))
    assert (status, body, closed) == (200, b"", [True])


async def test_bodies_beyond_the_listeners_memory_are_refused_and_it_comes_back(engine):
    async with rig.listening(rig.echo_router(), engine=engine, bodies_octets=1000) as place:
        async with rig.h2_client(place) as client:
            held = await client.open("POST", "/", end=False)
            client.h2.send_data(held, bytes(900))
            refused = await client.open("POST", "/", end=False)
            client.h2.send_data(refused, bytes(200), end_stream=True)
            await client.flush()
            assert (await client.answer(refused))[0] == 503
            client.h2.end_stream(held)
            await client.flush()
            assert (await client.answer(held))[0] == 200
            again = await client.open("POST", "/", end=False)
            client.h2.send_data(again, bytes(900), end_stream=True)
            await client.flush()
            assert (await client.answer(again))[0] == 200
