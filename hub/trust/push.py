"""``POST /trust-framework/notifications``: the framework says that something changed, and everything is looked at anew.

Theory. The framework lets an authorisation server name a notification webhook; what it sends there is not published, and
need not be known: a notification is only a reason to look, and what is looked at is the framework itself, over TLS, from
the addresses of the configuration. So nothing in it is believed, no address in it is called (also not one that asks to
be called to confirm the subscription: the operator sees the last notification in ``hub admin trust`` and calls it), and
whoever forges one gains a refresh. A key in the address or the header keeps strangers from that: HTTP Basic (any name,
the key as password; an address with userinfo is enough for the sender) or Bearer.

Many notifications at once are one look, and one more for those that came during it.

Sources: trust-framework.md 3.1 (``NotificationWebhook``) and 7 (de-listing at once); RFC 7617, RFC 6750 section 2.1.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping
from ipaddress import IPv6Network, ip_address
from pathlib import Path
from typing import Final, final

from hub.model.clock import Clock, Dice
from hub.model.event import Event, Kind, Verdict
from hub.model.fault import Fault
from hub.model.http import Handler, Request, Response
from hub.model.records import Setting
from hub.model.terms import Face
from hub.state.keeper import Keeper, Put, Take
from hub.trust.seal import Seal
from hub.trust.snapshot import PUSHED

PATH: Final = "/trust-framework/notifications"
ROUTE: Final = "trust-framework-notifications"
SHORTEST: Final = 32
"""Characters of the shortest key."""
_KEPT: Final = 4096
_RATE, _BURST = 2.0, 50
_REFUSALS_RATE, _REFUSALS_BURST = 1 / 60, 10
"""Refusals of one network that are written down: the face is open to strangers, who must not fill the disk."""
_CHALLENGE: Final = (b"www-authenticate", b'Basic realm="trust-framework"')


def read_push_key(path: Path) -> bytes:
    """Read the key: one line of printable ASCII.

    Raises:
        OSError: It cannot be read.
        ValueError: It is too short, or not such a line.
    """
    key = path.read_bytes().strip()
    if len(key) < SHORTEST or not key.isascii() or not key.decode().isprintable() or b" " in key:
        raise ValueError(f"expected one line of at least {SHORTEST} characters of printable ASCII")
    return key


@final
class Notifications:
    """Take notifications of the framework."""

    def __init__(self, key: bytes, *, keeper: Keeper, clock: Clock, dice: Dice, seal: Seal) -> None:
        """Take the key that a sender must know; an empty one turns the route off."""
        self._key = key
        self._keeper = keeper
        self._clock = clock
        self._dice = dice
        self._seal = seal

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """Return the handler by method and path; none without a key."""
        return {("POST", PATH): self.answer} if self._key else {}

    async def answer(self, request: Request) -> Response:
        """Take one notification: 204, and the process that refreshes hears of it with the commit.

        Faults: 401 empty without the key, written down a few times; 429 for a sender of too many, whom the audit log
        does not name; 503 as the keeper says.

        Cancellation: the refresh may or may not have been asked for.
        """
        network = _network_of(request.peer.address)
        claim = Take(bucket=f"push/{network}", rate=_RATE, burst=_BURST)
        granted = await self._keeper.claim([claim])
        if isinstance(granted, Fault):
            return Response(status=503, headers=((b"retry-after", b"1"),))
        if not granted[0].granted:
            event = self._event(request, 429, "trust.push_rate")
            return Response(status=429, headers=((b"retry-after", b"1"),), event=event)
        if not hmac.compare_digest(_presented(request), self._key):
            event = self._event(request, 401, "trust.push_key")
            await self._write_down(event, network)
            return Response(status=401, headers=(_CHALLENGE,), event=event)
        told = Setting(name=PUSHED, value=self._seal.close(PUSHED, request.body[:_KEPT]))
        event = self._event(request, 204)
        kept = await self._keeper.commit([Put(told)], [event])
        if isinstance(kept, Fault):
            return Response(status=503, headers=((b"retry-after", b"1"),), event=event)
        return Response(status=204, event=event)

    async def _write_down(self, refusal: Event, network: str) -> None:
        claim = Take(f"push-refused/{network}", _REFUSALS_RATE, _REFUSALS_BURST)
        granted = await self._keeper.claim([claim])
        if not isinstance(granted, Fault) and granted[0].granted:
            await self._keeper.commit([], [refusal])

    def _event(self, request: Request, status: int, check: str = "") -> Event:
        return Event(
            kind=Kind.NODE,
            time_ms=self._clock.now_ms(),
            interaction_id=self._dice.uuid(),
            face=Face.TPP,
            route=ROUTE,
            status=status,
            verdict=Verdict.REFUSED if check else Verdict.ALLOWED,
            check=check,
            x5t_s256=request.peer.x5t_s256,
            change="" if check else "trust.pushed",
            octets_in=len(request.body),
        )


def _network_of(address: str) -> str:
    """Return an IPv4 address, the /64 of an IPv6 address (one host has all of it), or the text itself."""
    try:
        found = ip_address(address)
        inner = found if found.version == 4 else found.ipv4_mapped
        return str(inner or IPv6Network((int(found), 64), strict=False))
    except ValueError:
        return address


def _presented(request: Request) -> bytes:
    """Return the key that a request presents; empty for none."""
    scheme, _, value = (request.header(b"authorization") or b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return value.strip()
    if scheme.lower() != b"basic":
        return b""
    try:
        return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
    except binascii.Error:
        return b""
