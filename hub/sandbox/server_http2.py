"""HTTP/2 of a sandbox site: the h2 package, one task per request (RFC 9113).

The reader task turns bytes into events and never waits for a handler. Answers share one send lock; a sender that has
used up its window waits for ``_window_opened``, which is replaced by a fresh Event each time a window opens.
"""

from typing import Final, final

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import trio
from trio.abc import Stream

from hub.sandbox.site import BODYLESS, FaultPlan, Site, SiteRequest, SiteResponse

_CHUNK: Final = 65_536
_Codes = h2.settings.SettingCodes
_Headers = list[tuple[str, str]]


@final
class _Incoming:
    """One request on its way in."""

    __slots__ = ("body", "headers")

    def __init__(self, headers: _Headers) -> None:
        self.headers = headers
        self.body = bytearray()


@final
class Http2Connection:
    """Serve the streams of one connection until the peer, a deadline or a fault ends it."""

    __slots__ = (
        "_active",
        "_certificate",
        "_conn",
        "_incoming",
        "_lock",
        "_resets",
        "_site",
        "_stream",
        "_tasks",
        "_window_opened",
    )

    def __init__(self, stream: Stream, site: Site, certificate: bytes) -> None:
        """Take a connected stream; the caller closes it."""
        self._stream = stream
        self._site = site
        self._certificate = certificate
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self._conn = h2.connection.H2Connection(config=config)
        self._incoming: dict[int, _Incoming] = {}
        self._tasks: dict[int, trio.Event] = {}
        self._lock = trio.Lock()
        self._window_opened = trio.Event()
        self._resets = 0
        self._active = 0

    async def run(self) -> None:
        """Serve until the connection ends; requests under way when the peer goes are cancelled.

        Raises:
            ExceptionGroup: Of OSError or trio.BrokenResourceError, where the transport failed.

        Cancellation: the connection is not usable afterwards.
        """
        self._conn.local_settings[_Codes.MAX_CONCURRENT_STREAMS] = self._site.bounds.streams
        self._conn.local_settings[_Codes.MAX_HEADER_LIST_SIZE] = self._site.bounds.head
        self._conn.initiate_connection()
        async with trio.open_nursery() as nursery:
            await self._flush()
            await self._read(nursery)
            nursery.cancel_scope.cancel()

    async def _read(self, nursery: trio.Nursery) -> None:
        while True:
            data = b""
            with trio.move_on_after(self._site.bounds.idle_s) as idle:
                data = bytes(await self._stream.receive_some(_CHUNK))
            if idle.cancelled_caught and self._active:
                continue
            if not data:
                return
            try:
                events = self._conn.receive_data(data)
            except h2.exceptions.ProtocolError:
                await self._flush()
                return
            for event in events:
                if not self._on(event, nursery):
                    await self._flush()
                    return
            await self._flush()

    def _on(self, event: h2.events.Event, nursery: trio.Nursery) -> bool:
        """Take one event; tell whether the connection goes on."""
        match event:
            case h2.events.RequestReceived(stream_id=int(stream_id), headers=list(headers)):
                pairs = [(str(k), str(v)) for k, v in headers]
                self._incoming[stream_id] = _Incoming(pairs)
            case h2.events.DataReceived(stream_id=int(stream_id)):
                self._on_data(stream_id, event)
            case h2.events.StreamEnded(stream_id=int(stream_id)):
                incoming = self._incoming.pop(stream_id, None)
                if incoming is not None:
                    nursery.start_soon(self._serve, stream_id, incoming)
            case h2.events.StreamReset(stream_id=int(stream_id)):
                return self._on_reset(stream_id)
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._wake()
            case h2.events.ConnectionTerminated():
                return False
            case _:
                pass
        return True

    def _on_data(self, stream_id: int, event: h2.events.DataReceived) -> None:
        self._conn.acknowledge_received_data(event.flow_controlled_length, stream_id)
        incoming = self._incoming.get(stream_id)
        if incoming is None:
            return
        incoming.body += event.data
        if len(incoming.body) > self._site.bounds.body:
            del self._incoming[stream_id]
            self._conn.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)

    def _on_reset(self, stream_id: int) -> bool:
        self._incoming.pop(stream_id, None)
        self._wake()
        self._resets += 1
        if self._resets <= self._site.bounds.resets:
            return True
        self._conn.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
        return False

    def _wake(self) -> None:
        self._window_opened.set()
        self._window_opened = trio.Event()

    async def _serve(self, stream_id: int, incoming: _Incoming) -> None:
        self._active += 1
        try:
            outcome = await self._site.outcome(self._request(incoming))
            if outcome.response is not None:
                await self._answer(stream_id, outcome.response, outcome.plan)
            elif outcome.plan.close:
                await trio.aclose_forcefully(self._stream)
            else:
                self._reset(stream_id)
                await self._flush()
        except h2.exceptions.ProtocolError:
            return  # the peer has reset the stream or ended the connection meanwhile
        finally:
            self._active -= 1

    def _request(self, incoming: _Incoming) -> SiteRequest:
        fields = dict(incoming.headers)
        path, _, query = fields.get(":path", "/").partition("?")
        plain = [(k, v) for k, v in incoming.headers if not k.startswith(":")]
        return SiteRequest(
            method=fields.get(":method", "GET"),
            path=path,
            query=query,
            headers=(("host", fields.get(":authority", "")), *plain),
            body=bytes(incoming.body),
            certificate=self._certificate,
        )

    async def _answer(self, stream_id: int, response: SiteResponse, plan: FaultPlan) -> None:
        headers = [(":status", str(response.status)), *response.headers]
        if response.status not in BODYLESS:
            headers.append(("content-length", str(len(response.body))))
        self._conn.send_headers(stream_id, headers, end_stream=not response.body)
        with trio.fail_after(self._site.bounds.send_s):
            await self._flush()
            if plan.half_answer:
                await self._data(stream_id, response.body[: len(response.body) // 2], end=False)
                self._reset(stream_id)
            elif response.body:
                await self._data(stream_id, response.body, end=True)
            if plan.goaway:
                self._conn.close_connection(last_stream_id=stream_id)
            await self._flush()

    async def _data(self, stream_id: int, body: bytes, *, end: bool) -> None:
        view = memoryview(body)
        while view:
            room = min(
                self._conn.local_flow_control_window(stream_id),
                self._conn.max_outbound_frame_size,
                len(view),
            )
            if room <= 0:
                await self._window_opened.wait()
                continue
            last = end and room == len(view)
            self._conn.send_data(stream_id, bytes(view[:room]), end_stream=last)
            view = view[room:]
            await self._flush()

    def _reset(self, stream_id: int) -> None:
        self._conn.reset_stream(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)

    async def _flush(self) -> None:
        with trio.fail_after(self._site.bounds.send_s):
            async with self._lock:
                data = self._conn.data_to_send()
                if data:
                    await self._stream.send_all(data)
