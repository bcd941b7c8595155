"""Time and randomness as arguments: nothing below the composition root reads either itself.

Waits and deadlines use trio's own clock. Expiry, periods and validity use ``Clock``: wall time plus an
offset that the composition root owns. In the sandbox that offset can be moved for the whole world; a Hub
started by ``hub serve`` has no way to reach it (architecture 2.10). ``FixedClock`` and ``SeededDice`` are
for tests and simulations.
"""

import hashlib
from typing import Protocol, final


class Clock(Protocol):
    """Tell the wall time."""

    def now(self) -> int:
        """Return whole seconds since 1970 UTC."""
        ...

    def now_ms(self) -> int:
        """Return milliseconds since 1970 UTC."""
        ...


class Dice(Protocol):
    """Give unpredictable bytes (a CSPRNG in production)."""

    def token(self, octets: int) -> bytes:
        """Return that many random octets, 1 to 1024."""
        ...

    def uuid(self) -> str:
        """Return a random UUID, version 4, in lower case (the standard's id patterns demand v4)."""
        ...


@final
class FixedClock:
    """A clock that stands where it is put."""

    __slots__ = ("_ms",)

    def __init__(self, seconds: float) -> None:
        """Stand at ``seconds`` since 1970 UTC."""
        self._ms = int(seconds * 1000)

    def now(self) -> int:
        """Return whole seconds."""
        return self._ms // 1000

    def now_ms(self) -> int:
        """Return milliseconds."""
        return self._ms

    def advance(self, seconds: float) -> None:
        """Move forward (or back) by that many seconds."""
        self._ms += int(seconds * 1000)


@final
class SeededDice:
    """Repeatable dice: SHA-256 in counter mode over a seed. Never for production."""

    __slots__ = ("_count", "_seed")

    def __init__(self, seed: str = "seed") -> None:
        """Start the sequence that ``seed`` names."""
        self._seed = seed.encode()
        self._count = 0

    def token(self, octets: int) -> bytes:
        """Return the next octets of the sequence."""
        out = b""
        while len(out) < octets:
            self._count += 1
            out += hashlib.sha256(self._seed + self._count.to_bytes(8)).digest()
        return out[:octets]

    def uuid(self) -> str:
        """Return the next version 4 UUID of the sequence."""
        return uuid4_from(self.token(16))


def uuid4_from(raw: bytes) -> str:
    """Shape 16 random octets into a version 4 UUID (RFC 9562 section 5.4)."""
    value = bytearray(raw)
    value[6] = (value[6] & 0x0F) | 0x40
    value[8] = (value[8] & 0x3F) | 0x80
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
