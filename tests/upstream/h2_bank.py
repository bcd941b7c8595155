"""A bank that speaks HTTP/2 by a script over frames, and the connections to it."""

from contextlib import asynccontextmanager
from functools import partial

import trio
from hpack import Decoder, Encoder

from hub.protocol.h2_output import frame
from tests.protocol.h2_frames import DATA, GOAWAY, HEADERS, PREFACE, RST, SETTINGS
from tests.upstream.scripted import Bank, Identity, answering, connections


class Frames:
    """The bank's end of one HTTP/2 connection, frame by frame."""

    def __init__(self, line):
        self.line = line
        self.number = line.number
        self.buffer = b""
        self.decoder = Decoder()
        self.requests = []
        self.bodies = {}
        self.resets = []

    async def begin(self, settings=b""):
        await self.settings(settings)
        await self.preface()

    async def settings(self, settings=b""):
        await self.line.say(frame(SETTINGS, 0, 0, settings))

    async def preface(self):
        await self._more(len(PREFACE))
        assert self.buffer.startswith(PREFACE)
        self.buffer = self.buffer[len(PREFACE) :]

    async def _more(self, octets):
        while len(self.buffer) < octets:
            data = await self.line.stream.receive_some(65536)
            if not data:
                raise trio.BrokenResourceError
            self.buffer += data

    async def frame(self):
        await self._more(9)
        end = 9 + int.from_bytes(self.buffer[:3])
        await self._more(end)
        one, self.buffer = self.buffer[:end], self.buffer[end:]
        return one[3], one[4], int.from_bytes(one[5:9]), one[9:]

    async def request(self, *, late=False):
        """Return the stream of the next complete request; ``late``: our own settings come later, as do all frames of ours."""
        while True:
            kind, flags, stream, payload = await self.frame()
            if kind == SETTINGS and not flags & 1 and not late:
                await self.line.say(frame(SETTINGS, 1, 0, b""))
            elif kind == HEADERS:
                self.requests.append((stream, dict(self.decoder.decode(payload))))
                self.bodies[stream] = b""
            elif kind == DATA:
                self.bodies[stream] += payload
            elif kind == RST:
                self.resets.append((stream, int.from_bytes(payload)))
            if kind in {HEADERS, DATA} and flags & 1:
                return stream

    async def answer(self, stream, body=b"{}", status="200", **fields):
        pairs = [(":status", status), *((n.replace("_", "-"), v) for n, v in fields.items())]
        await self.line.say(frame(HEADERS, 4, stream, Encoder().encode(pairs)))
        for at in range(0, len(body), 16384):
            await self.line.say(frame(DATA, 0, stream, body[at : at + 16384]))
        await self.line.say(frame(DATA, 1, stream, b""))

    async def goaway(self, last, code=0):
        await self.line.say(frame(GOAWAY, 0, 0, last.to_bytes(4) + code.to_bytes(4)))


async def serving(frames):
    """Answer whatever comes."""
    while True:
        await frames.answer(await frames.request())


@asynccontextmanager
async def bank2(script, folder, *, bounds=None, alpn=("h2", "http/1.1"), accepted=None, **over):
    """Run a bank that speaks HTTP/2 by a script over frames, and yield it with connections to it.

    ``accepted`` is called with both before each handshake.
    """

    async def both(line):
        if line.stream.selected_alpn_protocol() != "h2":
            await answering(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nold")(line)
            return
        frames = Frames(line)
        peer.frames.append(frames)
        await script(frames)

    async def serve(stream):
        if accepted is not None:
            accepted(peer, hub)
        await peer.serve(trio.SSLStream(stream, context, server_side=True))

    peer = Bank(both)
    peer.frames = []
    peer.identity = Identity(folder)
    context = peer.identity.server_context()
    context.set_alpn_protocols(list(alpn))
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="localhost"))
        peer.port = listeners[0].socket.getsockname()[1]
        hub = connections(folder, peer.port, bounds=bounds, http2=True, **over)
        try:
            with trio.fail_after(15):
                yield peer, hub
        finally:
            hub.close()
        nursery.cancel_scope.cancel()


async def plainly(frames):
    await frames.begin()
    await serving(frames)
