"""Histograms of durations: true percentiles to two percent, in a few hundred octets, and they add up.

Buckets are geometric: bucket ``n`` holds what is at least ``1.02 ** n`` microseconds and less than the next. A percentile
is the upper edge of the bucket that its rank falls into, never more than the largest value seen; so it is right to within
two percent of itself, whatever the distribution, and histograms of hours or workers are joined by adding counts.
"""

import math
from typing import Final

import msgspec

_STEP: Final = math.log(1.02)


class Histogram(msgspec.Struct):
    """Count durations in microseconds. Mutable: it is an accumulator."""

    counts: dict[int, int] = {}
    total: int = 0
    least: int = 0
    most: int = 0
    sum_us: int = 0

    def add(self, us: int, times: int = 1) -> None:
        """Count a duration, once or so many times; below one microsecond counts as one."""
        us = max(1, us)
        bucket = int(math.log(us) / _STEP)
        self.counts[bucket] = self.counts.get(bucket, 0) + times
        self.least = us if not self.total else min(self.least, us)
        self.most = max(self.most, us)
        self.total += times
        self.sum_us += us * times

    def join(self, other: "Histogram") -> None:
        """Add another histogram's counts."""
        if not other.total:
            return
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.least = min(self.least, other.least) if self.total else other.least
        self.most = max(self.most, other.most)
        self.total += other.total
        self.sum_us += other.sum_us

    def percentile(self, share: float) -> int:
        """Return the duration that a share (0 to 1) of all is at or below, in microseconds; 0 where there is none."""
        rank, seen = math.ceil(share * self.total), 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
                return min(self.most, max(self.least, math.ceil(math.exp((bucket + 1) * _STEP))))
        return 0

    @property
    def mean(self) -> int:
        """Return the mean in microseconds; 0 where there is none."""
        return self.sum_us // self.total if self.total else 0
