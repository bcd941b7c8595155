"""Draining and certificate rotation under load: nothing that was started goes unanswered, nobody sees an error."""

# ruff: noqa: SIM117 - a client inside its listener reads better nested

import ssl
from datetime import UTC, datetime, timedelta

import h2.events
import pytest
import trio
import trustme

from hub.edge.router import Router
from hub.model.http import Request, Response
from tests.edge import rig
from tests.waiting import until


@pytest.fixture(params=rig.ENGINES)
def engine(request):
    return request.param


async def brief(request: Request) -> Response:
    """Wait a few turns of the loop, as a handler with a commit does."""
    for _ in range(5):
        await trio.lowlevel.checkpoint()
    return Response(status=200, body=b"x" * 100)


async def keep_asking(place: rig.Place, tally: dict[str, int]) -> None:
    """Keep ten streams open until the server says that it leaves; count what was asked and answered below its last."""
    async with rig.h2_client(place) as client:
        asked: set[int] = set()
        answered: set[int] = set()
        last = 2**31 - 1
        seen = 0
        while True:
            while last == 2**31 - 1 and len(asked - answered) < 10:
                asked.add(await client.open())
            data = b""
            try:
                data = await client.stream.receive_some(65536)
            except (trio.BrokenResourceError, ssl.SSLError):
                tally["broken"] += 1
            if not data:
                break
            seen += len(data)
            # GOAWAY would close the client's own state machine: it is read here and kept from it.
            kept, at = b"", 0
            client.raw = getattr(client, "raw", b"") + data
            raw = client.raw
            while len(raw) - at >= 9 and len(raw) - at >= 9 + int.from_bytes(raw[at : at + 3]):
                end = at + 9 + int.from_bytes(raw[at : at + 3])
                if raw[at + 3] == 7:
                    last = min(last, int.from_bytes(raw[at + 9 : at + 13]))
                else:
                    kept += raw[at:end]
                at = end
            client.raw = raw[at:]
            for event in client.h2.receive_data(kept):
                if isinstance(event, h2.events.StreamEnded):
                    answered.add(event.stream_id)
                elif isinstance(event, h2.events.StreamReset):
                    asked.discard(event.stream_id)
                    assert event.stream_id > last or last == 2**31 - 1
                elif isinstance(event, h2.events.DataReceived):
                    client.h2.acknowledge_received_data(
                        event.flow_controlled_length, event.stream_id
                    )
            if last == 2**31 - 1 or asked - answered:
                try:
                    await client.flush()
                except (trio.BrokenResourceError, ssl.SSLError):
                    tally["broken"] += 1
        tally["answered"] += len(answered)
        tally["unanswered"] += len({number for number in asked - answered if number <= last})


async def test_drains_under_load_leave_nothing_unanswered(engine):
    tally = {"answered": 0, "unanswered": 0, "broken": 0}
    for _ in range(5):
        async with rig.listening(Router({("GET", "/"): brief}), engine=engine) as place:
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(keep_asking, place, tally)
                await until(lambda: len(place.notebook.answers) >= 100, 20, "a hundred answers")
                place.drain.start()
    assert tally["answered"] >= 500
    assert (tally["unanswered"], tally["broken"]) == (0, 0)


async def test_rotations_under_load_cost_no_request(engine):
    made = rig.papers()
    async with rig.listening(Router({("GET", "/"): brief}), engine=engine) as place:
        async with rig.h2_client(place) as old:
            for _ in range(10):
                rig.renew(made)
                assert place.tls.reload() == ""
                async with rig.h2_client(place) as fresh:
                    assert (await fresh.answer(await fresh.open()))[0] == 200
                assert (await old.answer(await old.open()))[0] == 200


async def test_resumed_connection_still_knows_its_peer(engine):
    async with rig.listening(rig.echo_router(), engine=engine) as place:
        context = rig.client_context("http/1.1")
        request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

        def ask(session: ssl.SSLSession | None) -> tuple[bytes, ssl.SSLSession | None, bool]:
            import socket

            with socket.create_connection(("127.0.0.1", place.port), timeout=5) as raw:
                with context.wrap_socket(raw, server_hostname="127.0.0.1", session=session) as tls:
                    tls.sendall(request)
                    got = b""
                    while data := tls.recv(65536):
                        got += data
                    return got, tls.session, bool(tls.session_reused)

        first, session, _ = await trio.to_thread.run_sync(ask, None)
        second, _, reused = await trio.to_thread.run_sync(ask, session)
    assert b'"certificate":true' in first
    assert reused
    assert b'"certificate":true' in second


async def refused(place: rig.Place, context: ssl.SSLContext) -> bool:
    """Tell whether a client is turned away (with TLS 1.3 it learns so when it reads)."""
    try:
        stream = await rig.tls_stream(place.port, context)
    except (trio.BrokenResourceError, ssl.SSLError):
        return True
    await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    got = await rig.read_all(stream)
    await trio.aclose_forcefully(stream)
    return got == b""


def presenting(ca: trustme.CA, **changes: object) -> ssl.SSLContext:
    context = rig.client_context(certificate=False)
    ca.issue_cert("tpp@example.test", common_name="tpp", **changes).configure_cert(context)
    return context


async def test_client_certificates_that_must_be_refused():
    clients, stranger = rig.papers().clients, trustme.CA()
    async with rig.listening(rig.echo_router()) as place:
        assert not await refused(place, presenting(clients))
        assert not await refused(place, rig.client_context(certificate=False))
        expired = presenting(clients, not_after=datetime.now(UTC) - timedelta(days=1))
        assert await refused(place, expired)
        assert await refused(place, presenting(stranger))
        assert await refused(place, presenting(stranger.create_child_ca()))
    reasons = place.notebook.reasons("handshake_refused")
    assert "certificate_has_expired" in reasons


async def test_old_protocols_and_suites_are_refused():
    async with rig.listening(rig.echo_router()) as place:
        weak = rig.client_context()
        weak.maximum_version = ssl.TLSVersion.TLSv1_2
        weak.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-AES128-SHA256:AES128-GCM-SHA256")
        assert await refused(place, weak)
        good = rig.client_context()
        good.maximum_version = ssl.TLSVersion.TLSv1_2
        assert not await refused(place, good)
    assert "no_shared_cipher" in place.notebook.reasons("handshake_refused")


async def test_connection_that_shakes_hands_during_the_drain_is_told_too(engine):
    async with rig.listening(rig.echo_router(), engine=engine) as place:
        raw = await trio.open_tcp_stream("127.0.0.1", place.port)
        place.drain.start()
        stream = trio.SSLStream(
            raw, rig.client_context("h2"), server_hostname="127.0.0.1", https_compatible=True
        )
        with trio.fail_after(8):
            await stream.do_handshake()
            goaway = await rig.Frames(stream).until(7)
            assert goaway[9:13] == (2**31 - 1).to_bytes(4)
            await rig.read_all(stream)
        await trio.aclose_forcefully(stream)
