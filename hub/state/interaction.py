"""Find the events of one interaction: their names are sorted slice by slice, after they were acknowledged.

Theory. Interaction ids have no order. An index that is kept with each event changes one page somewhere in its middle for
each of them: four kilobytes to the log and again to the database, which cost more than everything else of a commit.
Instead, what was written is sorted by name every sixteen thousand events, by one statement, and put behind what is there:
whole pages, one after the other. Who searches looks into each slice by its order, and reads the events after the last
slice one by one (2 ms at most): at ten million events about 600 short descents, some milliseconds.

Invariants. Slices are of neighbouring events, in order, without gaps, from the first event on; a slice and its names are
written in one transaction. Events without an interaction have no name in a slice; what is forgotten has none any more.
A caller chooses its interaction ids, so one may have any number of events: no more of them are read than are asked for.
"""

from collections.abc import Iterable
from typing import Any, Final

from hub.state.entry import MOST

SLICE: Final = 16_384
"""Events after the last slice that are worth one of their own: sorting them holds up one group by some 14 ms. A quarter of it
was four times as many descents: 84 ms for the first search among ten million events."""

_END: Final = "SELECT coalesce((SELECT beyond FROM slice ORDER BY first DESC LIMIT 1), 0)"
_TRACE: Final = (
    "SELECT position, leaf FROM event WHERE position IN (SELECT interaction.position FROM slice "
    "CROSS JOIN interaction ON interaction.slice = slice.first AND interaction.name = ?1 "
    "ORDER BY slice.first, interaction.position LIMIT ?2) "
    "UNION ALL SELECT position, leaf FROM event "
    "WHERE position >= coalesce((SELECT beyond FROM slice ORDER BY first DESC LIMIT 1), 0) "
    "AND interaction = ?1 "
    "ORDER BY position LIMIT ?2"
)
_FORGET: Final = (
    "DELETE FROM interaction WHERE position = ?1 "
    "AND slice = (SELECT first FROM slice WHERE first <= ?1 ORDER BY first DESC LIMIT 1) "
    "AND name = (SELECT interaction FROM event WHERE position = ?1)"
)
_GAPS: Final = (
    "SELECT count(*) FROM (SELECT first, lag(beyond, 1, 0) OVER (ORDER BY first) AS before FROM slice) "
    "WHERE first <> before"
)
_WRONG: Final = (
    "SELECT count(*) FROM (SELECT * FROM interaction ORDER BY position LIMIT -1) AS named "
    "LEFT JOIN slice ON slice.first = named.slice "
    "LEFT JOIN event ON event.position = named.position AND event.interaction = named.name "
    "AND event.position >= slice.first AND event.position < slice.beyond "
    "WHERE event.position IS NULL"
)
_NAMES: Final = "SELECT count(*) FROM interaction"
_NAMED: Final = (
    "SELECT count(*) FROM event WHERE interaction <> '' "
    "AND position < coalesce((SELECT max(beyond) FROM slice), 0)"
)


def sliced(connection: Any) -> int:
    """Return how many events are in slices."""
    return int(connection.execute(_END).get)


def add_slice(connection: Any, first: int, beyond: int) -> None:
    """Sort the events from ``first``, where the slices end, to before ``beyond``; in a transaction of its own."""
    with connection:
        connection.execute(
            "INSERT INTO interaction SELECT ?1, interaction, position FROM event "
            "WHERE position >= ?1 AND position < ?2 AND interaction <> '' "
            "ORDER BY interaction, position",
            (first, beyond),
        )
        connection.execute("INSERT INTO slice VALUES (?, ?)", (first, beyond))


def forget_names(connection: Any, positions: Iterable[int]) -> None:
    """Forget which interactions these events are of, in the slices; before the events forget it, in one transaction."""
    connection.executemany(_FORGET, [(position,) for position in positions])


def agree(connection: Any) -> bool:
    """Tell whether the slices hold each name of their events and no other; reads everything."""
    gaps, wrong, names, named = (
        connection.execute(sql).get for sql in (_GAPS, _WRONG, _NAMES, _NAMED)
    )
    return not gaps and not wrong and names == named


def traced(connection: Any, interaction_id: str) -> tuple[tuple[int, bytes], ...]:
    """Return index and leaf bytes of the events of one interaction, oldest first, at most 1000."""
    if not interaction_id:
        return ()
    return tuple(connection.execute(_TRACE, (interaction_id, MOST)).fetchall())
