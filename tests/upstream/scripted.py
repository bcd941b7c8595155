"""A hostile bank: a TLS server that follows a script for each connection, and the connections to it."""

import ssl
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio
import trustme
from cryptography.hazmat.primitives.asymmetric import rsa

from hub.config import BankSettings, Limits, Tenant, default_limits
from hub.model.clock import FixedClock, SeededDice
from hub.observe import Observer
from hub.protocol.jose import PrivateKey
from hub.upstream.bank import BankCall
from hub.upstream.connections import BankConnections

Script = Callable[["Line"], Awaitable[None]]
CLOCK = FixedClock(1_780_000_000)
BEARER = PrivateKey(kid="sig3", key=rsa.generate_private_key(public_exponent=65537, key_size=2048))
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class Line:
    """One accepted connection: requests come out as bytes, answers go in as bytes."""

    def __init__(self, stream, number):
        self.stream = stream
        self.number = number
        self._buffer = b""

    async def request(self):
        while b"\r\n\r\n" not in self._buffer:
            data = await self.stream.receive_some(65536)
            if not data:
                return b""
            self._buffer += data
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while len(rest) < length:
            rest += await self.stream.receive_some(65536)
        self._buffer = rest[length:]
        return head + b"\r\n\r\n" + rest[:length]

    async def say(self, data):
        await self.stream.send_all(data)

    def reset(self):
        sock = self.stream.transport_stream.socket
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()


class Bank:
    """The running peer: how many connections it took and each request it saw."""

    def __init__(self, script):
        self.script = script
        self.connections = 0
        self.requests = []
        self.port = 0

    async def serve(self, stream):
        self.connections += 1
        line = Line(stream, self.connections)
        try:
            await stream.do_handshake()
            await self.script(line)
            await stream.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            await trio.aclose_forcefully(stream.transport_stream)


class Identity:
    def __init__(self, folder, host="localhost"):
        self.ca = trustme.CA()
        self.folder = folder
        self.server = self.ca.issue_cert(host)
        self.client = self.ca.issue_cert(
            "hub.example", organization_name="Bank", organization_unit_name="org-1"
        )
        self.ca.cert_pem.write_to_path(folder / "ca.pem")
        self.client.cert_chain_pems[0].write_to_path(folder / "c.pem")
        self.client.private_key_pem.write_to_path(folder / "k.pem")

    def server_context(self):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.server.configure_cert(context)
        self.ca.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


def settings(folder, port, **over):
    values = {
        "base_url": f"https://localhost:{port}",
        "authorization_endpoint": "https://bank.example/authorize",
        "ca": folder / "ca.pem",
        "certificate": folder / "c.pem",
        "key": folder / "k.pem",
        "auth": "mtls",
        "audience": "LFI",
        "http2": False,
    }
    return BankSettings(**(values | over))


def limits(**over):
    return Limits(**(default_limits() | over))


TENANT = Tenant(
    provider_id="LFI1",
    organisation_id="o",
    organisation_name="Bank",
    issuer="https://as.example",
    resource_base="https://rs.example",
)


def connections(folder, port, *, bounds=None, **over):
    return BankConnections(
        settings=settings(folder, port, **over),
        tenant=TENANT,
        limits=bounds or limits(),
        bearer_key=BEARER,
        clock=CLOCK,
        dice=SeededDice(),
        observer=Observer(CLOCK, log=False),
    )


@asynccontextmanager
async def bank(script, folder, *, identity=None, bounds=None, **over):
    """Run a scripted bank and yield it with connections to it."""
    identity = identity or Identity(folder)
    peer = Bank(script)
    context = identity.server_context()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(
                trio.serve_tcp,
                lambda s: peer.serve(trio.SSLStream(s, context, server_side=True)),
                0,
                host="localhost",
            )
        )
        peer.port = listeners[0].socket.getsockname()[1]
        hub = connections(folder, peer.port, bounds=bounds, **over)
        yield peer, hub
        hub.close()
        nursery.cancel_scope.cancel()


def get(path="/accounts", **over):
    return BankCall(**({"method": "GET", "path": path, "repeatable": True} | over))


def post(body=b"{}", **over):
    values = {
        "method": "POST",
        "path": "/payments",
        "body": body,
        "headers": ((b"content-type", b"application/json"),),
    }
    return BankCall(**(values | over))


def answering(*answers):
    """Make a script that answers each request of a connection with the next of these bytes."""

    async def script(line):
        for answer in answers:
            if not await line.request():
                return
            await line.say(answer)
        while await line.request():
            await line.say(answers[-1])

    return script
