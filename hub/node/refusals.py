"""What the edge itself refuses, as audit events: one per request of a known certificate, else one per network and minute.

A caller with a certificate that TLS has verified gets an event for each request, durable before the answer leaves, as
with every handler. Whoever has none, or does not come as far as a request, is counted: per source network, check and
minute one event, so that nobody can fill the disk. Source: architecture 2.5.
"""

from typing import Final, final

import msgspec
import trio

from hub.authz.strangers import Strangers, network_of
from hub.model.clock import Clock, Dice
from hub.model.event import Event, Kind, Verdict
from hub.model.fault import Fault
from hub.model.http import Request, Response
from hub.model.terms import Face
from hub.observe import Observer
from hub.state.keeper import Keeper

_WAITING: Final = 256
_AGAIN_S: Final = 1.0


@final
class Refusals:
    """Write down what the edge refuses; implements ``Register``."""

    def __init__(self, *, keeper: Keeper, clock: Clock, dice: Dice, observer: Observer) -> None:
        """Start with nothing counted."""
        self._keeper = keeper
        self._clock = clock
        self._dice = dice
        self._observer = observer
        self._strangers = Strangers()
        self._send, self._receive = trio.open_memory_channel[Event](_WAITING)

    async def refused(self, request: Request, response: Response, check: str) -> Response:
        """Write down one refused request; return the answer with its event, 503 where the store cannot take it.

        Cancellation: it may or may not have been written.
        """
        peer = request.peer
        failed = response.status >= 500
        event = Event(
            kind=Kind.CALL,
            time_ms=self._clock.now_ms(),
            interaction_id=self._dice.uuid(),
            face=request.face,
            client_id=peer.client_id[:100],
            organisation_id=peer.organisation_id[:100],
            x5t_s256=peer.x5t_s256,
            verdict=Verdict.FAILED if failed else Verdict.REFUSED,
            check=check,
            status=response.status,
        )
        if not peer.present:
            return self._count(peer.address, event, response)
        if failed:  # the store may be what failed: nobody waits for it again
            self._queue(event)
        elif isinstance(await self._keeper.commit((), (event,)), Fault):
            return Response(status=503)
        return msgspec.structs.replace(response, event=event)

    def turned_away(self, face: Face, address: str, check: str) -> None:
        """Count somebody who never came as far as a request."""
        event = Event(
            kind=Kind.REFUSED,
            time_ms=self._clock.now_ms(),
            face=face,
            verdict=Verdict.REFUSED,
            check=check,
        )
        self._count(address, event, None)

    def _count(self, address: str, event: Event, response: Response | None) -> Response:
        count = self._strangers.count(address, event.check, event.time_ms // 1000)
        counted = msgspec.structs.replace(
            event, kind=Kind.REFUSED, subject=network_of(address), count=count
        )
        if count:
            self._queue(counted)
        answer = Response(status=event.status) if response is None else response
        return msgspec.structs.replace(answer, event=counted)

    def happened(self, event: Event) -> None:
        """Write down, soon, what was no request: a certificate that was read anew."""
        self._queue(event)

    def _queue(self, event: Event) -> None:
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self._observer.note("refusal_lost", check=event.check, count=event.count)

    async def run(self) -> None:
        """Write what was counted, many at once, until cancelled; while the store cannot, it waits.

        Cancellation: what waits is lost.
        """
        while True:
            events = [await self._receive.receive()]
            while len(events) < _WAITING:
                try:
                    events.append(self._receive.receive_nowait())
                except trio.WouldBlock:
                    break
            while True:
                if not isinstance(await self._keeper.commit((), tuple(events)), Fault):
                    break
                await trio.sleep(_AGAIN_S)
