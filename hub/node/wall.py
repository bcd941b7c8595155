"""The real clock and the real dice; the only place that reads either."""

import os
import time
from typing import final

from hub.model.clock import uuid4_from


@final
class WallClock:
    """Tell the machine's wall time."""

    __slots__ = ()

    def now(self) -> int:
        """Return whole seconds since 1970 UTC."""
        return int(time.time())  # noqa: TID251 - the composition root owns the clock

    def now_ms(self) -> int:
        """Return milliseconds since 1970 UTC."""
        return time.time_ns() // 1_000_000


@final
class SystemDice:
    """Give octets of the operating system's CSPRNG."""

    __slots__ = ()

    def token(self, octets: int) -> bytes:
        """Return that many random octets."""
        return os.urandom(octets)

    def uuid(self) -> str:
        """Return a random version 4 UUID."""
        return uuid4_from(os.urandom(16))
