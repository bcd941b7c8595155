"""Forget entries that need not be kept, by kind and age; their hashes stay, so every proof holds as before.

Only whole bundles of a published log are touched: ``tile/kept/N`` takes the place of ``tile/entries/N``, with the pruned
entries empty. First the log itself declares what is pruned (an event with how many, up to where, and a digest over their
hashes), then it is done; so a verifier tells pruning from tampering, and a crash in between is repaired by doing it again.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final

import msgspec

from hub.audit.search import event_of
from hub.audit.tiles import WIDTH, Tiles, bundle_of, kept_path, tile_path
from hub.model.event import Event, Kind
from hub.model.terms import Face

CHANGE: Final = "pruned"
_DAY_MS: Final = 86_400_000


class Plan(msgspec.Struct, frozen=True):
    """Hold what is to be forgotten now, and what will be forgotten in all once it is: position to leaf hash."""

    now: Mapping[int, bytes]
    all: Mapping[int, bytes]

    def event(self, now_ms: int) -> Event:
        """Return the declaration that must be in the log before anything is forgotten."""
        digest = sha256(b"".join(self.all[at] for at in sorted(self.all))).hexdigest()
        return Event(
            kind=Kind.ADMIN,
            time_ms=now_ms,
            face=Face.OPS,
            route="audit.prune",
            subject=f"{max(self.all) + 1} {digest}",
            change=CHANGE,
            count=len(self.all),
        )


def plan(tiles: Tiles, size: int, days: Mapping[str, int], now_ms: int) -> Plan:
    """Look through the whole bundles of a log of ``size`` entries.

    Args:
        tiles: The log's files.
        size: Of its last checkpoint.
        days: For each kind of event how many days it is kept; other kinds are kept for ever.
        now_ms: The time.

    Raises:
        LogError: A file is missing or damaged.
    """
    now: dict[int, bytes] = {}
    gone: dict[int, bytes] = {}
    for index in range(size // WIDTH):
        hashes = tiles.hashes(0, index, WIDTH)
        for at, entry in enumerate(tiles.entries(index, WIDTH)):
            position = index * WIDTH + at
            if not entry:
                gone[position] = hashes[at]
            elif _is_over(event_of(entry), days, now_ms):
                now[position] = hashes[at]
    return Plan(now, {**gone, **now})


def _is_over(event: Event, days: Mapping[str, int], now_ms: int) -> bool:
    kept = days.get(event.kind)
    return kept is not None and event.time_ms < now_ms - kept * _DAY_MS


def forget(tiles: Tiles, positions: Sequence[int]) -> None:
    """Take entries out of their bundles; what was done already is left alone, what a crash left of it is removed.

    Raises:
        LogError: A file is missing or damaged.
        OSError: The disk does not take it; do it again.
    """
    by_bundle: dict[int, list[int]] = {}
    for position in positions:
        by_bundle.setdefault(position // WIDTH, []).append(position % WIDTH)
    for index, places in by_bundle.items():
        entries = tiles.entries(index, WIDTH)
        if any(entries[place] for place in places):
            for place in places:
                entries[place] = b""
            tiles.replace(kept_path(index), bundle_of(entries))
        (tiles.folder / tile_path(None, index)).unlink(missing_ok=True)
        tiles.drop_partial(None, index)
