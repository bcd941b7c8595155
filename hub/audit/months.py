"""Close each month with a kept checkpoint, and chain it to the next by an event that names it.

The log is one tree for as long as the tenant lives, so a proof reaches over any months. What a month needs is an end
that stays: ``months/YYYY-MM`` beside the tiles is the checkpoint under which the month was closed, with every signature
it had; the first event after it (``month-closed``) says its size and root, so nobody can put another in its place.
Months are of UTC.
"""

from datetime import UTC, datetime
from typing import Final

from hub.audit.log import Log
from hub.audit.note import Checkpoint, NoteError, open_note
from hub.audit.tiles import LogError
from hub.model.event import Event, Kind

MONTHS: Final = "months"
CHANGE: Final = "month-closed"


def month_of(time_ms: int) -> str:
    """Return ``YYYY-MM`` of a moment."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m")


def close_month(log: Log, month: str, now_ms: int) -> Event:
    """Keep the last checkpoint as the month's; return the event that must follow it.

    A month that was closed before a crash, and whose event may be missing, is not closed anew.

    Raises:
        LogError: What was kept of the month is damaged.
        OSError: The disk does not take it.
    """
    name = f"{MONTHS}/{month}"
    kept = log.folder / name
    if not kept.exists():
        log.tiles.write(name, log.note.encode())
    try:
        head = Checkpoint.parse(open_note(kept.read_bytes().decode(), log.verifiers)[0])
    except (NoteError, UnicodeDecodeError) as error:
        raise LogError(f"{kept}: {error}") from error
    subject = f"{month} {head.size} {head.root.hex()}"
    return Event(kind=Kind.NODE, time_ms=now_ms, subject=subject, change=CHANGE)
