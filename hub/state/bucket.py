"""Token buckets: how often a caller may do something; a bounded number of them, in memory."""

from math import ceil
from typing import final

import msgspec

from hub.state.keeper import Granted, Take, Takes


class _Level(msgspec.Struct):
    tokens: float
    at_ms: int


@final
class Buckets:
    """Hold the buckets that are not known to be full; the one longest untouched is forgotten (full) first."""

    __slots__ = ("_entries", "_levels")

    def __init__(self, entries: int) -> None:
        """Hold at most ``entries`` buckets, 1 or more."""
        self._entries = entries
        self._levels: dict[str, _Level] = {}

    def __len__(self) -> int:
        """Return how many buckets are remembered."""
        return len(self._levels)

    def answer(self, claim: Take | Takes, now_ms: int) -> Granted:
        """Answer a claim of one bucket or of several: what one refuses, the others are not charged for."""
        if isinstance(claim, Take):
            return self.take(claim, now_ms)
        taken: list[_Level] = []
        for at, one in enumerate(claim.takes):
            granted = self.take(one, now_ms)
            if not granted.granted:
                for level in taken:
                    level.tokens += 1
                return Granted(granted=False, retry_after=granted.retry_after, at=at)
            taken.append(self._levels[one.bucket])
        return Granted(granted=True)

    def take(self, claim: Take, now_ms: int) -> Granted:
        """Take one token, or tell in how many seconds one will be there. A clock that goes back refills nothing."""
        level = self._levels.pop(claim.bucket, None) or _Level(float(claim.burst), now_ms)
        gained = max(0, now_ms - level.at_ms) / 1000 * claim.rate
        level.tokens = min(float(claim.burst), level.tokens + gained)
        level.at_ms = now_ms
        self._levels[claim.bucket] = level
        if len(self._levels) > self._entries:
            del self._levels[next(iter(self._levels))]
        if level.tokens >= 1:
            level.tokens -= 1
            return Granted(granted=True)
        wait = (1 - level.tokens) / claim.rate if claim.rate > 0 else 3600.0
        return Granted(granted=False, retry_after=max(1, ceil(wait)))
