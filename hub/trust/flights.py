"""Single key sets fetched for those who wait: one fetch per client however many wait, and only so many.

Theory. A key that the framework published a moment ago is usable on the first request that names it: that request waits
in ``refresh_keys`` for one fetch of its client's key set. Each client has ``_BURST`` fetches in quick succession, then one
per ``_REFILL_S`` seconds, so that unknown key ids cannot make us hammer the framework.
"""

import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, final

import trio

from hub.observe import Observer
from hub.trust.fetch import Fetcher
from hub.trust.known import Known
from hub.trust.mirror import Client
from hub.trust.refresh import described, look_at_keys

_BURST: Final = 3
_REFILL_S: Final = 30
_WAITING: Final = 1000
_OVERTAKEN: Final = 3
"""Looks at most in one flight: one more for each refresh that came in between."""


@final
class Flights:
    """Fetch key sets in the background, and let others wait for them."""

    def __init__(
        self,
        *,
        known: Known,
        observer: Observer,
        fetching: Callable[[], AbstractAsyncContextManager[Fetcher]],
        seconds: float,
    ) -> None:
        """Take what it needs.

        Args:
            known: Where key sets are installed.
            observer: For notes.
            fetching: Opens connections to the framework.
            seconds: Longest time of one fetch, and longest wait for one.
        """
        self._known = known
        self._observer = observer
        self._fetching = fetching
        self._seconds = seconds
        self._flights: dict[str, trio.Event] = {}
        self._rates: dict[str, tuple[float, float]] = {}
        self.landed: set[str] = set()
        """Clients whose fetched key sets are installed, but not kept yet."""
        self._wanted, self._to_fetch = trio.open_memory_channel[str](_WAITING)

    async def fly(self) -> None:
        """Fetch the key sets that somebody waits for, until cancelled."""
        async with trio.open_nursery() as nursery:
            async for client_id in self._to_fetch:
                nursery.start_soon(self._fetch, client_id)

    async def _fetch(self, client_id: str) -> None:
        """Fetch one key set and wake all who wait for it."""
        try:
            with trio.move_on_after(self._seconds):
                for _ in range(_OVERTAKEN):
                    if await self._fetch_keys_of(client_id):
                        return
        finally:
            self._flights.pop(client_id).set()

    async def _fetch_keys_of(self, client_id: str) -> bool:
        """Fetch and install a client's key set; False if a refresh, which may have read an older one, came in between."""
        client = self._known.clients.get(client_id)
        if client is None:
            return True
        try:
            async with self._fetching() as fetcher:
                found = await look_at_keys(fetcher, client)
        except (OSError, ssl.SSLError) as error:
            self._observer.note("trust.keys_failed", why=type(error).__name__)
            return True
        if not isinstance(found, Client):
            self._observer.note("trust.keys_failed", why=described(found))
            return True
        if self._known.clients.get(client_id) is not client:
            return False
        self._known.install_client(client_id, found)
        self.landed.add(client_id)
        return True

    async def refresh_keys(self, client_id: str) -> None:
        """Fetch the client's key set once if the rate allows; return when it is in, or after the deadline.

        Cancellation: harmless; the fetch goes on for the others that wait.
        """
        landed = self._flights.get(client_id)
        if landed is None:
            landed = self._take_off(client_id)
        if landed is not None:
            with trio.move_on_after(self._seconds):
                await landed.wait()

    def _take_off(self, client_id: str) -> trio.Event | None:
        """Ask the background for one key set, if the client is known and its rate allows."""
        if self._known.clients.get(client_id) is None or not self._allowed(client_id):
            return None
        landed = self._flights[client_id] = trio.Event()
        try:
            self._wanted.send_nowait(client_id)
        except (trio.WouldBlock, trio.BrokenResourceError):
            del self._flights[client_id]
            return None
        return landed

    def _allowed(self, client_id: str) -> bool:
        now = trio.current_time()
        left, since = self._rates.get(client_id, (float(_BURST), now))
        left = min(_BURST, left + (now - since) / _REFILL_S)
        if left < 1:
            return False
        self._rates[client_id] = (left - 1, now)
        return True
