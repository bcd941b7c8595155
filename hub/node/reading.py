"""Read a tenant's log from outside its node, running or not; each reading is an event before anything is shown."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import apsw
import msgspec
import trio

from hub.audit.open import ReadLog
from hub.audit.search import hash_of
from hub.audit.tiles import WIDTH, LogError
from hub.config import Loaded, load
from hub.model.event import Event, Kind
from hub.model.fault import Fault
from hub.model.terms import Face
from hub.node.ask import ask
from hub.node.errors import StartError
from hub.node.wall import SystemDice, WallClock
from hub.state.open import Reader, StoreError, open_keeper, open_reader


class Place:
    """One tenant's folder, and how readings of it are recorded."""

    def __init__(self, path: Path) -> None:
        """Read the configuration.

        Raises:
            ConfigError: It is wrong.
        """
        self.path = path
        self.loaded: Loaded = load(path)
        self.folder = self.loaded.settings.state.folder
        self.zone = self.loaded.settings.tenant.time_zone

    def log(self) -> ReadLog:
        """Read the published log.

        Raises:
            StartError: There is none, or it is damaged.
        """
        try:
            return ReadLog.read(self.folder)
        except LogError as error:
            raise StartError(str(error)) from None

    def record(self, what: str, subject: str) -> None:
        """Make it an event that somebody reads the log.

        Raises:
            StartError: It cannot be recorded; then nothing is shown.
        """
        try:
            answer = ask(self.path, {"do": "audit", "level": what, "subject": subject})
        except StartError:
            trio.run(self._record_here, what, subject)
            return
        if not answer.get("ok"):
            raise StartError(f"the reading could not be recorded: {answer.get('error')}")

    async def _record_here(self, what: str, subject: str) -> None:
        clock, settings = WallClock(), self.loaded.settings
        event = Event(
            kind=Kind.ADMIN,
            time_ms=clock.now_ms(),
            interaction_id=SystemDice().uuid(),
            face=Face.OPS,
            route="admin.audit",
            subject=subject[:64],
            change=what,
        )
        try:
            async with open_keeper(self.folder, clock=clock, limits=settings.limits) as keeper:
                recorded = await keeper.commit((), (event,))
        except (StoreError, OSError) as error:
            raise StartError(f"the reading could not be recorded: {error}") from None
        if isinstance(recorded, Fault):
            raise StartError(f"the reading could not be recorded: {recorded.private}")

    def read(self, question: Callable[[Reader], Awaitable[int]]) -> int:
        """Ask the tenant's state something.

        Raises:
            StartError: There is none, it is damaged, or the log does not fit it.
        """
        try:
            with open_reader(self.folder) as reader:
                return trio.run(question, reader)
        except (StoreError, LogError) as error:
            raise StartError(str(error)) from None
        except apsw.CorruptError as error:
            raise StartError(
                f"{self.folder}: a database is damaged ({error}); "
                "if it is the log's index, hub audit reindex makes it anew"
            ) from None
        except msgspec.MsgspecError as error:
            raise StartError(unreadable(error)) from None


def unreadable(error: msgspec.MsgspecError) -> str:
    """Return the line that says why an event cannot be read."""
    return f"an event is of a newer Hub, which can read it, or damaged: {error}"


async def fits(log: ReadLog, reader: Reader, tell: Callable[[str], object]) -> int:
    """Compare the last published entries with the database; return the exit status."""
    head, size = await reader.head(), log.size
    first = max(0, size - WIDTH)
    leaves = await reader.events(first, size - first)
    stored: list[bytes] = []
    for index in range(first // WIDTH, -(-size // WIDTH)):
        stored += log.tiles.hashes(0, index, min(WIDTH, size - index * WIDTH))
    if head.size < size or [hash_of(leaf) for leaf in leaves] != stored[first % WIDTH :]:
        tell("REJECTED the database is not the one that this log was published from")
        return 1
    tell(f"the database has {head.size} events, {head.size - size} of them not published yet")
    return 0
