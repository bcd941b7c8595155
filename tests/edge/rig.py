"""A listener with an application of the test's own, certificates, and raw clients to provoke it with."""

import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp

import h2.config
import h2.connection
import h2.events
import msgspec
import trio
import trustme

from hub.config import Limits, Listen, default_limits
from hub.edge.listener import Drain, serve
from hub.edge.router import Router
from hub.edge.tls import ServerTls
from hub.model.clock import FixedClock
from hub.model.http import App, Request, Response, json_response
from hub.model.terms import Face

ENGINES = ("lean", "package")


class Notebook:
    """Stand in for the observer: remember what it is told."""

    def __init__(self) -> None:
        self.answers: list[tuple[Request, Response, int]] = []
        self.notes: list[tuple[str, dict[str, object]]] = []

    def answered(self, request: Request, response: Response, duration_ns: int) -> None:
        self.answers.append((request, response, duration_ns))

    def note(self, name: str, **fields: str | int | bool) -> None:
        self.notes.append((name, fields))

    def reasons(self, name: str) -> list[object]:
        return [fields.get("reason") for noted, fields in self.notes if noted == name]


def limits(**changes: object) -> Limits:
    return msgspec.convert({**default_limits(), **changes}, Limits)


class Papers(msgspec.Struct, frozen=True):
    folder: Path
    certificate: Path
    key: Path
    client_ca: Path
    authority: trustme.CA
    clients: trustme.CA


@cache
def papers() -> Papers:
    folder = Path(mkdtemp(prefix="edge-"))
    authority, clients = trustme.CA(), trustme.CA()
    made = Papers(
        folder,
        folder / "server.pem",
        folder / "server.key",
        folder / "clients.pem",
        authority,
        clients,
    )
    renew(made)
    clients.cert_pem.write_to_path(made.client_ca)
    return made


def renew(made: Papers) -> None:
    issued = made.authority.issue_cert("localhost", "127.0.0.1")
    made.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(made.key)


def client_context(
    *alpn: str, certificate: bool = True, issuer: trustme.CA | None = None
) -> ssl.SSLContext:
    context = ssl.create_default_context()
    papers().authority.configure_trust(context)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if certificate:
        (issuer or papers().clients).issue_cert(
            "tpp@example.test",
            common_name="tpp",
            organization_name="O",
            organization_unit_name="OU",
        ).configure_cert(context)
    return context


def context_of_a_client_that_takes_any_name(*alpn: str) -> ssl.SSLContext:
    """Return the context of a client that asks under one name and reads the certificate it gets, whatever that names.

    The one place in all tests where a check of TLS is off: which certificate a name gets is what is tested, and a client
    that checks the name would end the handshake before it can be read. The chain is verified as ever.
    """
    context = client_context(*alpn)
    context.check_hostname = False
    return context


class Place(msgspec.Struct):
    port: int
    notebook: Notebook
    drain: Drain
    tls: ServerTls | None


@asynccontextmanager
async def listening(
    app: App,
    *,
    engine: str = "package",
    tls: bool = True,
    hosts: tuple[str, ...] = (),
    **changes: object,
) -> AsyncIterator[Place]:
    notebook, drain = Notebook(), Drain()
    made = papers()
    server_tls = ServerTls(made.certificate, made.key, made.client_ca) if tls else None
    async with trio.open_nursery() as nursery:
        port = await nursery.start(
            partial(
                serve,
                listen=Listen(port=0, hosts=hosts),
                face=Face.TPP,
                app=app,
                limits=limits(**changes),
                observer=notebook,
                tls=server_tls,
                engine=engine,
                clock=FixedClock(1_700_000_000),
                drain=drain,
            )
        )
        yield Place(port, notebook, drain, server_tls)
        nursery.cancel_scope.cancel()


async def tls_stream(port: int, context: ssl.SSLContext) -> trio.SSLStream[trio.SocketStream]:
    stream = trio.SSLStream(
        await trio.open_tcp_stream("127.0.0.1", port),
        context,
        server_hostname="127.0.0.1",
        https_compatible=True,
    )
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Read to the end; a reset counts as the end."""
    got = b""
    with trio.fail_after(10):
        try:
            while data := await stream.receive_some(65536):
                got += data
        except trio.BrokenResourceError:
            pass
    return got


async def http1(port: int, octets: bytes) -> bytes:
    """Send octets without TLS and read until the server closes."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(octets)
        return await read_all(stream)


class Frames:
    """Read raw HTTP/2 frames."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self.stream = stream
        self.buffer = b""

    async def next(self) -> bytes:
        """Return the next frame; empty at the end."""
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3]):
            try:
                data = await self.stream.receive_some(65536)
            except trio.BrokenResourceError:
                return b""
            if not data:
                return b""
            self.buffer += data
        end = 9 + int.from_bytes(self.buffer[:3])
        frame, self.buffer = self.buffer[:end], self.buffer[end:]
        return frame

    async def until(self, *kinds: int) -> bytes:
        """Return the next frame of one of these kinds; empty at the end."""
        with trio.fail_after(10):
            while (frame := await self.next()) and frame[3] not in kinds:
                pass
        return frame


class H2Client:
    """A client on the h2 package that can also send raw frames."""

    def __init__(self, stream: trio.abc.Stream, *, scheme: str = "https") -> None:
        self.stream = stream
        self.scheme = scheme
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                validate_outbound_headers=False, normalize_outbound_headers=False
            )
        )
        self.events: list[h2.events.Event] = []
        self.closed = False

    async def start(self) -> None:
        self.h2.initiate_connection()
        await self.flush()

    async def flush(self) -> None:
        await self.stream.send_all(self.h2.data_to_send())

    def headers(
        self, method: str = "GET", path: str = "/", *extra: tuple[str, str]
    ) -> list[tuple[str, str]]:
        return [
            (":method", method),
            (":scheme", self.scheme),
            (":authority", "localhost"),
            (":path", path),
            *extra,
        ]

    async def open(
        self, method: str = "GET", path: str = "/", *extra: tuple[str, str], end: bool = True
    ) -> int:
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, self.headers(method, path, *extra), end_stream=end)
        await self.flush()
        return number

    async def receive(self) -> bool:
        try:
            data = await self.stream.receive_some(65536)
        except trio.BrokenResourceError:
            data = b""
        if not data:
            self.closed = True
            return False
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self.events.append(event)
        try:
            await self.flush()
        except trio.BrokenResourceError:
            self.closed = True
        return True

    async def until(self, wanted: Callable[[h2.events.Event], bool]) -> h2.events.Event:
        seen = 0
        with trio.fail_after(10):
            while True:
                for event in self.events[seen:]:
                    seen += 1
                    if wanted(event):
                        return event
                if not await self.receive():
                    raise EOFError(f"closed after {self.events}")

    async def answer(self, number: int) -> tuple[int, dict[bytes, bytes], bytes]:
        await self.until(
            lambda e: (
                isinstance(e, h2.events.StreamEnded | h2.events.StreamReset)
                and e.stream_id == number
            )
        )
        return self.answered(number)

    def answered(self, number: int) -> tuple[int, dict[bytes, bytes], bytes]:
        status, fields, body = 0, {}, b""
        for event in self.events:
            if getattr(event, "stream_id", None) != number:
                continue
            if isinstance(event, h2.events.ResponseReceived):
                fields = dict(event.headers)
                status = int(fields[b":status"])
            elif isinstance(event, h2.events.DataReceived):
                body += event.data
        return status, fields, body


@asynccontextmanager
async def h2_client(place: Place, *, certificate: bool = True) -> AsyncIterator[H2Client]:
    stream = await tls_stream(place.port, client_context("h2", certificate=certificate))
    try:
        client = H2Client(stream)
        await client.start()
        yield client
    finally:
        await trio.aclose_forcefully(stream)


async def echo(request: Request) -> Response:
    """Answer with what was asked."""
    body = msgspec.json.encode(
        {
            "method": request.method,
            "path": request.path,
            "query": request.query,
            "authority": request.authority,
            "body": request.body.decode("latin-1"),
            "client": request.peer.client_id,
            "certificate": request.peer.present,
        }
    )
    return json_response(200, body)


def echo_router(**routes: object) -> Router:
    return Router({("GET", "/"): echo, ("POST", "/"): echo, ("GET", "/things/{id}"): echo})


def pieces(octets: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(octets), size):
        yield octets[at : at + size]
