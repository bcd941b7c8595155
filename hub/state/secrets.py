"""The tenant's own small secrets: made once, kept by the keeper, the same for every worker; and DPoP nonces from one.

A nonce is a keyed digest of the minutes it is good for, so nobody has to remember it: the one of this period is given
out, those of this and the last period are accepted.

Source: RFC 9449 section 8.
"""

import hashlib
import hmac
from typing import Final

from hub.model.clock import Clock, Dice
from hub.model.event import Event, Kind
from hub.model.http import UnavailableError
from hub.model.records import Setting
from hub.protocol.jose import b64url
from hub.state.keeper import Keeper, Put

NONCE_S: Final = 300


class Secrets:
    """Give the tenant's secrets by name."""

    def __init__(self, *, keeper: Keeper, clock: Clock, dice: Dice) -> None:
        """Take where they are kept and what they are made of."""
        self._keeper = keeper
        self._clock = clock
        self._dice = dice
        self._known: dict[str, bytes] = {}

    async def get(self, name: str) -> bytes:
        """Return a secret of 32 octets; the first who needs it makes it.

        Raises:
            UnavailableError: The keeper cannot keep it now.

        Cancellation: harmless.
        """
        if name in self._known:
            return self._known[name]
        found = await self._keeper.lookup(Setting, name)
        if found is None:
            made = Setting(name=name, value=self._dice.token(32))
            now_ms = self._clock.now_ms()
            event = Event(kind=Kind.NODE, time_ms=now_ms, subject=name, change="made")
            await self._keeper.commit([Put(made, expect=0)], [event])
            found = await self._keeper.lookup(Setting, name)
        if found is None:
            raise UnavailableError(f"the keeper cannot keep {name}")
        self._known[name] = found[0].value
        return found[0].value

    async def nonces(self) -> tuple[str, str]:
        """Return the DPoP nonce to give out now, and the one before it.

        Raises:
            UnavailableError: As of ``get``.

        Cancellation: harmless.
        """
        secret = await self.get("authz.dpop_nonce")
        period = self._clock.now() // NONCE_S
        return _nonce(secret, period), _nonce(secret, period - 1)


def _nonce(secret: bytes, period: int) -> str:
    return b64url(hmac.digest(secret, b"%d" % period, hashlib.sha256)[:16])
