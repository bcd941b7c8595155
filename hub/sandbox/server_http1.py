"""HTTP/1.1 of a sandbox site: h11, one request at a time (RFC 9112)."""

from typing import Final, final

import h11
import trio
from trio.abc import Stream

from hub.sandbox.site import BODYLESS, FaultPlan, Site, SiteRequest, SiteResponse

_CHUNK: Final = 65_536


@final
class Http1Connection:
    """Serve requests from one stream until the peer, a deadline or a fault ends it."""

    __slots__ = ("_certificate", "_conn", "_site", "_stream")

    def __init__(self, stream: Stream, site: Site, certificate: bytes) -> None:
        """Take a connected stream; the caller closes it."""
        self._stream = stream
        self._site = site
        self._certificate = certificate
        self._conn = h11.Connection(h11.SERVER, max_incomplete_event_size=site.bounds.head)

    async def run(self) -> None:
        """Serve until the connection ends.

        Raises:
            OSError, trio.BrokenResourceError: The transport failed.
            trio.TooSlowError: The peer did not send or take what it had begun in time.

        Cancellation: the connection is not usable afterwards.
        """
        try:
            while await self._one():
                self._conn.start_next_cycle()
        except h11.RemoteProtocolError as error:
            await self._refuse(error.error_status_hint)

    async def _one(self) -> bool:
        """Serve one request; tell whether another may follow on this connection."""
        head: h11.Event | type[h11.PAUSED] | None = None
        with trio.move_on_after(self._site.bounds.idle_s):
            head = await self._event()
        if not isinstance(head, h11.Request):
            return False
        with trio.fail_after(self._site.bounds.receive_s):
            body = await self._body()
        if body is None:
            await self._refuse(413)
            return False
        outcome = await self._site.outcome(self._request(head, body))
        if outcome.response is None:
            return False
        await self._answer(outcome.response, outcome.plan)
        return self._conn.our_state is h11.DONE and self._conn.their_state is h11.DONE

    async def _event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._conn.next_event()
            if isinstance(event, h11.Event) or event is h11.PAUSED:
                return event
            if self._conn.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            self._conn.receive_data(bytes(await self._stream.receive_some(_CHUNK)))

    async def _body(self) -> bytes | None:
        body = bytearray()
        while isinstance(event := await self._event(), h11.Data):
            body += event.data
            if len(body) > self._site.bounds.body:
                return None
        return bytes(body)

    def _request(self, head: h11.Request, body: bytes) -> SiteRequest:
        path, _, query = head.target.decode("ascii").partition("?")
        return SiteRequest(
            method=head.method.decode("ascii"),
            path=path,
            query=query,
            headers=tuple((k.decode("ascii"), v.decode("latin-1")) for k, v in head.headers),
            body=body,
            certificate=self._certificate,
        )

    async def _answer(self, response: SiteResponse, plan: FaultPlan) -> None:
        headers = [*response.headers]
        if response.status not in BODYLESS:
            headers.append(("content-length", str(len(response.body))))
        if plan.goaway or plan.half_answer:
            headers.append(("connection", "close"))
        await self._send(h11.Response(status_code=response.status, headers=headers))
        if plan.half_answer:
            await self._send(h11.Data(data=response.body[: len(response.body) // 2]))
            self._conn.send_failed()
            return
        if response.body and response.status not in BODYLESS:
            await self._send(h11.Data(data=response.body))
        await self._send(h11.EndOfMessage())

    async def _refuse(self, status: int) -> None:
        """Answer a request that never became one, if an answer can still be sent."""
        if self._conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        headers = [("content-length", "0"), ("connection", "close")]
        await self._send(h11.Response(status_code=status, headers=headers))
        await self._send(h11.EndOfMessage())

    async def _send(self, event: h11.Event) -> None:
        data = self._conn.send(event)
        if data:
            with trio.fail_after(self._site.bounds.send_s):
                await self._stream.send_all(data)
