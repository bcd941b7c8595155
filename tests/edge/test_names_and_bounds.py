"""Certificates per host name, handshakes per address, renewal while running, and who is told of refusals."""

import ssl
from functools import partial
from pathlib import Path
from random import Random

import pytest
import trio
import trustme
from cryptography import x509

from bench.evidence import append
from hub.config import Listen
from hub.edge.listener import Drain, Renewal, serve
from hub.edge.router import Router
from hub.edge.tls import ServerTls
from hub.model.http import Request, Response, UnavailableError
from hub.model.terms import Face
from hub.state.remote import KeeperGoneError
from tests.edge import rig
from tests.waiting import until


class Told:
    """Stand in for the register of refusals: remember what it is told."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, int, str]] = []
        self.away: list[str] = []

    async def refused(self, request: Request, response: Response, check: str) -> Response:
        await trio.lowlevel.checkpoint()
        self.requests.append((request.path, response.status, check))
        return response

    def turned_away(self, face: Face, address: str, check: str) -> None:
        self.away.append(check)


async def opened(nursery, app, *, tls=None, register=None, renewal=None, hosts=(), **changes):
    notebook = rig.Notebook()
    port = await nursery.start(
        partial(
            serve,
            listen=Listen(port=0, hosts=hosts),
            face=Face.TPP,
            app=app,
            limits=rig.limits(**changes),
            observer=notebook,
            tls=tls,
            engine="lean",
            drain=Drain(),
            register=register,
            renewal=renewal,
        )
    )
    return rig.Place(port, notebook, Drain(), tls)


def server_tls(*names):
    made = rig.papers()
    hosts = {}
    for name in names:
        issued = made.authority.issue_cert(name)
        certificate, key = made.folder / f"{name}.pem", made.folder / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        hosts[name] = (certificate, key)
    return ServerTls(made.certificate, made.key, made.client_ca, hosts)


async def names_served(port, name):
    stream = trio.SSLStream(
        await trio.open_tcp_stream("127.0.0.1", port),
        rig.context_of_a_client_that_takes_any_name("h2"),
        server_hostname=name,
        https_compatible=True,
    )
    await stream.do_handshake()
    certificate = x509.load_der_x509_certificate(stream.getpeercert(binary_form=True))
    await trio.aclose_forcefully(stream)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(names.get_values_for_type(x509.DNSName))


async def test_each_host_name_has_its_certificate_and_any_other_gets_the_default():
    tls = server_tls("as.bank.example", "rs.bank.example")
    async with trio.open_nursery() as nursery:
        place = await opened(nursery, rig.echo_router(), tls=tls)
        assert await names_served(place.port, "as.bank.example") == {"as.bank.example"}
        assert await names_served(place.port, "RS.bank.example") == {"rs.bank.example"}
        assert await names_served(place.port, "other.example") == {"localhost"}
        assert await names_served(place.port, None) == {"localhost"}
        nursery.cancel_scope.cancel()


async def test_client_certificates_are_demanded_of_the_same_authorities_under_every_name():
    tls = server_tls("as.bank.example")
    async with trio.open_nursery() as nursery:
        place = await opened(nursery, rig.echo_router(), tls=tls)
        context = rig.client_context("h2", issuer=trustme.CA())
        stream = trio.SSLStream(
            await trio.open_tcp_stream("127.0.0.1", place.port),
            context,
            server_hostname="as.bank.example",
        )
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012 - TLS 1.3 tells of it late
            await stream.do_handshake()
            await stream.receive_some(1)
        await trio.aclose_forcefully(stream)
        nursery.cancel_scope.cancel()
    assert place.notebook.reasons("handshake_refused")


async def test_a_name_whose_new_certificate_is_bad_keeps_the_old_one():
    tls = server_tls("as.bank.example")
    path = rig.papers().folder / "as.bank.example.pem"
    path.write_text("nonsense")
    assert tls.reload()
    async with trio.open_nursery() as nursery:
        place = await opened(nursery, rig.echo_router(), tls=tls)
        assert await names_served(place.port, "as.bank.example") == {"as.bank.example"}
        nursery.cancel_scope.cancel()


async def test_handshakes_beyond_the_address_limit_are_closed_and_those_that_ended_free_their_place():
    told = Told()
    async with trio.open_nursery() as nursery:
        place = await opened(
            nursery, rig.echo_router(), tls=server_tls(), register=told, handshakes_per_address=2
        )
        idle = [await trio.open_tcp_stream("127.0.0.1", place.port) for _ in range(2)]
        third = await trio.open_tcp_stream("127.0.0.1", place.port)
        assert await rig.read_all(third) == b""
        await third.aclose()
        assert place.notebook.reasons("connection_refused") == ["handshakes_per_address"]
        assert "edge.handshakes_per_address" in told.away
        for stream in idle:
            await trio.aclose_forcefully(stream)
        await trio.testing.wait_all_tasks_blocked()
        stream = await rig.tls_stream(place.port, rig.client_context("h2"))
        more = await rig.tls_stream(place.port, rig.client_context("h2"))
        for one in (stream, more):
            await trio.aclose_forcefully(one)
        nursery.cancel_scope.cancel()


async def answer(port, octets):
    return (await rig.http1(port, octets)).split(b"\r\n")[0]


GET = b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def test_the_edges_own_refusals_are_told_with_their_check():
    told = Told()
    async with trio.open_nursery() as nursery:
        place = await opened(
            nursery,
            rig.echo_router(),
            register=told,
            hosts=("localhost",),
            body_rate_octets_s=10**6,
        )
        assert b" 404 " in await answer(place.port, GET % b"/nowhere")
        assert b" 405 " in await answer(
            place.port, b"TRACE / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        assert b" 421 " in await answer(
            place.port, b"GET / HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n"
        )
        large = b"POST / HTTP/1.1\r\nHost: localhost\r\ncontent-length: 99999999\r\nConnection: close\r\n\r\n"
        assert b" 413 " in await answer(place.port, large)
        assert b" 400 " in await answer(place.port, b"GET / HTTP/1.1\r\n\r\n")
        assert b" 431 " in await answer(
            place.port,
            b"GET / HTTP/1.1\r\nHost: localhost\r\nx: " + bytes([65]) * 40_000 + b"\r\n\r\n",
        )
        nursery.cancel_scope.cancel()
    assert told.requests == [
        ("/nowhere", 404, "edge.path_unknown"),
        ("/", 405, "edge.method"),
        ("/", 421, "edge.authority"),
        ("/", 413, "edge.body_large"),
    ]
    assert len(told.away) >= 2
    assert [r.status for _, r, _ in place.notebook.answers] == [404, 405, 421, 413, 400, 431]


async def test_what_cannot_be_answered_now_is_503_and_comes_again():
    async def gone(request: Request) -> Response:
        raise KeeperGoneError("the keeper is out of reach")

    assert issubclass(KeeperGoneError, UnavailableError)
    told = Told()
    async with trio.open_nursery() as nursery:
        place = await opened(nursery, Router({("GET", "/"): gone}), register=told)
        got = await rig.http1(place.port, GET % b"/")
        nursery.cancel_scope.cancel()
    assert got.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1\r\n" in got.lower()
    assert told.requests == [("/", 503, "edge.unavailable")]


async def test_a_register_that_raises_costs_no_answer():
    class Broken(Told):
        async def refused(self, request: Request, response: Response, check: str) -> Response:
            raise ZeroDivisionError

    async with trio.open_nursery() as nursery:
        place = await opened(nursery, rig.echo_router(), register=Broken())
        assert b" 404 " in await answer(place.port, GET % b"/nowhere")
        nursery.cancel_scope.cancel()
    assert ("register_failed", {"error": "ZeroDivisionError"}) in place.notebook.notes


async def test_a_renewed_listener_answers_open_connections_by_the_new_application():
    async def old(request: Request) -> Response:
        return Response(status=200, body=b"old")

    async def new(request: Request) -> Response:
        return Response(status=200, body=b"new")

    renewal = Renewal()
    async with trio.open_nursery() as nursery:
        place = await opened(nursery, Router({("GET", "/"): old}), renewal=renewal)
        async with await trio.open_tcp_stream("127.0.0.1", place.port) as stream:
            for wanted in (b"old", b"new"):
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (await stream.receive_some(65536)).endswith(wanted)
                renewal.renew(Router({("GET", "/"): new}), rig.limits(handshakes=3), ())
        nursery.cancel_scope.cancel()


def hello() -> bytes:
    """Return a ClientHello as OpenSSL writes it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = rig.client_context("h2", "http/1.1")
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def mutated(dice: Random, octets: bytes) -> bytes:
    """Flip, cut, repeat or insert octets; split the record in two now and then."""
    data = bytearray(octets)
    for _ in range(dice.randint(1, 8)):
        at = dice.randrange(len(data))
        kind = dice.randrange(5)
        if kind == 0:
            data[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            del data[at : at + dice.randint(1, 64)]
        elif kind == 2:
            data[at:at] = dice.randbytes(dice.randint(1, 64))
        elif kind == 3:
            data[at:at] = data[at : at + dice.randint(1, 64)]
        else:
            data[at : at + 2] = b"\xff\xff"
        data = data or bytearray(b"\x16")
    return bytes(data)


async def greet_with(place, octets):
    with trio.move_on_after(2):
        try:
            async with await trio.open_tcp_stream("127.0.0.1", place.port) as stream:
                await stream.send_all(octets)
                await stream.send_eof()
                await rig.read_all(stream)
        except (trio.BrokenResourceError, OSError):
            pass


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(300, id="some"),
        pytest.param(10_000, id="ten thousand", marks=pytest.mark.nightly),
    ],
)
async def test_mutated_hellos_leave_the_listener_as_it_was(count):
    dice, octets = Random(3), hello()
    async with trio.open_nursery() as nursery:
        place = await opened(nursery, rig.echo_router(), tls=server_tls("as.bank.example"))
        await greet_with(place, octets)
        before = descriptors()
        for _ in range(count // 50):
            async with trio.open_nursery() as crowd:
                for _ in range(50):
                    crowd.start_soon(greet_with, place, mutated(dice, octets))
        stream = await rig.tls_stream(place.port, rig.client_context("h2"))
        await trio.aclose_forcefully(stream)
        await until(
            lambda: descriptors() <= before, 10, "each connection to be closed", seen=descriptors
        )
        nursery.cancel_scope.cancel()
    assert not [n for n, _ in place.notebook.notes if n == "connection_failed"]
    if count > 300:
        append("attack: C4 mutated hellos", {"connections": count}, (3,), "descriptors as before")


async def test_a_server_name_of_no_letters_is_refused_without_a_traceback(capfd):
    """Under pytest a traceback that Python would print is an error of this test."""
    octets = hello()
    assert octets.count(b"localhost") == 1
    async with trio.open_nursery() as nursery:
        place = await opened(nursery, rig.echo_router(), tls=server_tls("as.bank.example"))
        await greet_with(place, octets.replace(b"localhost", b"localh\xefst"))
        nursery.cancel_scope.cancel()
    assert place.notebook.reasons("handshake_refused") == ["callback_failed"]
    assert capfd.readouterr().err == ""


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
