"""Keep the published log close behind the committed one: publish, collect cosignatures, close months."""

import errno
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, final

import msgspec
import trio

from hub.audit.log import Log
from hub.audit.months import close_month, month_of
from hub.audit.note import NoteError, Verifier
from hub.audit.source import Events, LogFailedError
from hub.audit.tiles import LogError
from hub.audit.witness import request_of
from hub.model.clock import Clock
from hub.model.event import Event
from hub.model.fault import Fault
from hub.observe import Observer
from hub.state.backup import FORGOTTEN

_EVERY_S: Final = 1.0
_WITNESS_S: Final = 2.0
_LATE_S: Final = 10.0
_PASSING: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE})
"""What is full: the disk, or the table of open files in a crowd. Nothing was promised yet, and it passes."""

Ask = Callable[[bytes], Awaitable[tuple[int, bytes] | None]]
"""Sends a witness one ``add-checkpoint`` request; status and body of its answer, None where there is none."""
Commit = Callable[[Event], Awaitable[object]]
"""Makes one event durable, or returns the Fault that says that it is not."""


class _Moment(msgspec.Struct):
    time_ms: int


_MOMENT: Final = msgspec.json.Decoder(_Moment)
"""Of an event that may be a newer Hub's, of a kind that this one does not know."""


@final
class Witness:
    """One witness as the log sees it: whose signature, how to ask, what it signed last."""

    def __init__(self, verifier: Verifier, ask: Ask) -> None:
        """Know nothing yet; the witness says what it remembers."""
        self.verifier = verifier
        self.cosigned = 0
        """Size of the last checkpoint that it signed for us."""
        self._ask = ask
        self._said = ""

    async def cosign(self, log: Log, observer: Observer) -> None:
        """Have the last checkpoint signed, within two seconds; what hinders it is noted once.

        Cancellation: the witness may have signed and we not know; it will say so the next time.
        """
        said = "witness_silent"
        with trio.move_on_after(_WITNESS_S):
            said = await self._try(log)
        if said != self._said:
            observer.note(said or "witness_signs", witness=self.verifier.name)
        self._said = said

    async def _try(self, log: Log) -> str:
        """Return an empty string when signed, else what to note; a split view is told from mere silence."""
        for _ in range(2):
            if self.cosigned > log.size:
                return "witness_has_seen_more"
            request = await trio.to_thread.run_sync(request_of, log.tiles, log.note, self.cosigned)
            answer = await self._ask(request)
            if answer is None:
                return "witness_silent"
            status, body = answer
            if status == 200:
                return await self._join(log, body)
            if status != 409 or not body.strip().isdigit() or len(body) > 16:
                return "witness_refuses"
            if int(body) == self.cosigned:
                return "witness_has_seen_another_log"
            self.cosigned = int(body)
        return "witness_refuses"

    async def _join(self, log: Log, body: bytes) -> str:
        try:
            lines = body.decode()
            await trio.to_thread.run_sync(log.add_signature, lines, self.verifier)
        except (NoteError, UnicodeDecodeError):
            return "witness_signs_wrongly"
        self.cosigned = log.size
        return ""


@final
class Publisher:
    """The task that publishes a tenant's log each second."""

    def __init__(
        self,
        log: Log,
        keeper: Events,
        observer: Observer,
        *,
        clock: Clock | None = None,
        commit: Commit | None = None,
        witnesses: Sequence[Witness] = (),
        every_s: float = _EVERY_S,
    ) -> None:
        """Take the log and where its events come from; with ``clock`` and ``commit``, months are closed."""
        self.log = log
        self.witnesses = tuple(witnesses)
        self._keeper = keeper
        self._observer = observer
        self._clock = clock
        self._commit = commit
        self._every_s = every_s
        self._month = ""
        self._good_at = -_LATE_S

    def ready(self) -> bool:
        """Tell whether the log was brought up to date within the last ten seconds."""
        return trio.current_time() - self._good_at < _LATE_S

    async def run(self) -> None:
        """Publish and sign until cancelled; stop for good when the log does not fit the keeper.

        A full disk is waited out, and so is a crowd that leaves no file to be opened. A log that does not fit is noted as ``audit_log_refused``: requests go on (their
        events are durable in the keeper's tree), nothing is signed, the node is no longer ready, and a person must look.

        Raises:
            LogFailedError: The disk broke its word; the process must end.
        """
        while True:
            try:
                await self.round()
            except LogError as error:
                self._observer.note("audit_log_refused", reason=str(error))
                self._good_at = -_LATE_S
                return
            except OSError as error:
                if error.errno not in _PASSING:
                    raise LogFailedError(f"the audit log could not be written: {error}") from error
                self._observer.note("audit_log_waiting", reason=str(error))
            else:
                self._good_at = trio.current_time()
            size = self.log.size
            self._observer.gauge("hub_audit_published", "Events in the last checkpoint", size)
            await trio.sleep(self._every_s)

    async def round(self) -> None:
        """Publish once, have it cosigned, and close the month if it is over.

        Raises:
            LogError: The log does not fit the keeper; nothing was signed.
            OSError: The disk does not take it.
        """
        # Before the publication: what it brings may be of the new month, and the old one would never be closed.
        self._month = self._month or await self._last_month()
        if await self.log.publish(self._keeper):
            await self._have_it_cosigned()
        if self._clock is not None and self._commit is not None and self._month:
            await self._turn_month(self._clock, self._commit)

    async def _have_it_cosigned(self) -> None:
        failed: list[Exception] = []
        try:
            async with trio.open_nursery() as nursery:
                for witness in self.witnesses:
                    nursery.start_soon(witness.cosign, self.log, self._observer)
        except* (LogError, OSError) as group:
            failed += group.exceptions
        if failed:  # not a group: who runs this tells a full disk from a broken one
            raise failed[0]

    async def _turn_month(self, clock: Clock, commit: Commit) -> None:
        month = month_of(clock.now_ms())
        if month <= self._month:
            return
        event = await trio.to_thread.run_sync(close_month, self.log, self._month, clock.now_ms())
        if not isinstance(await commit(event), Fault):  # else it is tried again in the next round
            self._month = month

    async def _last_month(self) -> str:
        """Return the month of the last event that was published, else of the last one; empty where there is none.

        It may have been pruned: an older copy of the log lies beside its database.
        """
        size = self.log.size or (await self._keeper.head()).size
        newest = await self._keeper.events(size - 1, 1) if size else ()
        if not newest or newest[0][:1] == FORGOTTEN:
            return ""
        return month_of(_MOMENT.decode(newest[0]).time_ms)


async def publish_forever(
    log: Log, keeper: Events, observer: Observer, *, every_s: float = _EVERY_S
) -> None:
    """Publish and sign each second until cancelled; see ``Publisher.run``."""
    await Publisher(log, keeper, observer, every_s=every_s).run()
