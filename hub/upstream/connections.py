"""The bank as the rest of the Hub sees it: one call in, one answer or one Fault out, always within the deadline.

Theory. The task that calls drives its exchange alone (``exchange``), over a connection that ``Pool`` lends. One cancel
scope holds the deadline; a Fault tells how far it came. A GET is sent once more over a new connection if the lent one
had been used before and ended before a single octet of the answer: the peer had closed it, and reading twice harms
nobody. Nothing else is ever sent twice.

``run`` owns the housekeeping: it closes connections that rest, picks up changed certificates, and polls the bank's
health operations.

Source: issue 3 point 4; hub-behaviour 10; ozone-connect 3.7.
"""

import ssl
from pathlib import Path
from typing import Final

import trio

from hub.config import BankSettings, Limits, Tenant
from hub.model.clock import Clock, Dice
from hub.model.fault import Fault
from hub.model.http import Headers
from hub.observe import Observer
from hub.protocol.jose import PrivateKey
from hub.upstream.bank import BankAnswer, BankCall
from hub.upstream.bearer import ApiKey, JwtAuth, subject_of
from hub.upstream.circuit import Circuit, Permit
from hub.upstream.credentials import TokenEndpoint, make_bearer, origin_of
from hub.upstream.exchange import (
    NOTHING,
    AnswerStream,
    Progress,
    Upload,
    converse,
    finish,
    patience,
)
from hub.upstream.faults import bank_failure
from hub.upstream.h1 import AnswerReader, request_head
from hub.upstream.health import Health
from hub.upstream.multiplex import Multiplexed, Sending
from hub.upstream.pool import Pool, Slot
from hub.upstream.tls import TlsConnection, client_context

_COUNTED: Final = frozenset(
    {"bank.unreachable", "bank.tls", "bank.timeout", "bank.reset", "bank.malformed"}
)
_REAP_S: Final = 5.0


class BankConnections:
    """Exchange calls with the bank over pooled mutual TLS; implements ``Bank``."""

    def __init__(
        self,
        *,
        settings: BankSettings,
        tenant: Tenant,
        limits: Limits,
        bearer_key: PrivateKey,
        clock: Clock,
        dice: Dice,
        observer: Observer,
    ) -> None:
        """Read certificates and keys; nothing is connected yet.

        Args:
            settings: Where the bank is and how it wants us to authenticate.
            tenant: Whose Hub this is.
            limits: Bounds.
            bearer_key: Signs JWT Auth (Sig3).
            clock: For bearers.
            dice: For bearers' ``jti``.
            observer: Told of state changes and failures.

        Raises:
            OSError: A file cannot be read.
            ssl.SSLError: A certificate or key is not what it should be.
        """
        self._settings = settings
        self._limits = limits
        self._observer = observer
        self._host, self._port, self._authority = origin_of(settings.base_url)
        self._stamp = self._files()
        self._context = client_context(settings)
        self._pool = Pool(
            self._host,
            self._port,
            self._context,
            most=limits.bank_connections,
            waiting=limits.bank_waiting,
            age=limits.bank_age_s,
            idle=limits.bank_idle_s,
            connect=limits.bank_connect_s,
        )
        self._circuit = Circuit(limits.bank_failures, limits.bank_open_s, limits.bank_open_most_s)
        self._bearer = make_bearer(
            settings,
            key=bearer_key,
            clock=clock,
            dice=dice,
            life=limits.bearer_s,
            ask=TokenEndpoint(settings.token_endpoint, lambda: self._context).ask,
        )
        self._health = Health(
            self.exchange, provider_id=tenant.provider_id, limits=limits, observer=observer
        )
        self._streams: set[AnswerStream] = set()
        self._multiplexed: Multiplexed | None = None
        if settings.http2:
            self._context2 = client_context(settings, http2=True)
            self._multiplexed = Multiplexed(
                limits=limits,
                authority=self._authority,
                connect=lambda progress: self._open(progress, self._context2),
                note=observer.note,
            )

    @property
    def busy(self) -> int:
        """Return how many exchanges hold a connection."""
        return self._pool.busy

    @property
    def idle(self) -> int:
        """Return how many connections rest."""
        return self._pool.idle

    def close(self) -> None:
        """Close every connection that rests or carries a streamed answer."""
        for stream in tuple(self._streams):
            stream.close()
        self._pool.close()
        if self._multiplexed is not None:
            self._multiplexed.close()

    async def exchange(self, call: BankCall) -> BankAnswer | Fault:
        """Send one call and return its answer; faults and cancellation as ``Bank.exchange`` says."""
        started = trio.current_time()
        permit = self._circuit.admit(started)
        if permit is Permit.NO:
            return bank_failure(
                "bank.circuit_open",
                f"the bank did not answer lately; next try in {self._circuit.wait(started)} s",
                sent=False,
            )
        progress = Progress()
        settled = False
        try:
            result = await self._try(call, progress, started)
            self._settle(result, permit)
            settled = True
            if isinstance(result, BankAnswer) and result.status == 401 and not call.bearer:
                self._bearer.refused(call.scope)
        finally:
            if not settled:
                self._circuit.given_up(permit)
        return result

    def _settle(self, result: BankAnswer | Fault, permit: Permit) -> None:
        if isinstance(result, BankAnswer):
            if self._circuit.answered():
                self._observer.note("bank.circuit_closed")
            return
        self._observer.note(result.check, why=result.private)
        if result.check not in _COUNTED:
            self._circuit.given_up(permit)
        elif self._circuit.failed(trio.current_time(), permit):
            self._observer.note("bank.circuit_opened")

    async def _try(self, call: BankCall, progress: Progress, started: float) -> BankAnswer | Fault:
        """Get what an exchange needs, without waiting where it is there, then exchange."""
        deadline = started + patience(call, self._limits)
        authorization: bytes | Fault | None = self._authorization(call)
        if authorization is None:
            with trio.move_on_at(deadline):
                authorization = await self._bearer.value(call.scope)
        slot = self._slot()
        if slot is None and isinstance(authorization, bytes):
            with trio.move_on_at(deadline) as scope:
                slot = await self._pool.acquire()
            if slot is None and not scope.cancelled_caught:
                return bank_failure("bank.busy", "too many exchanges wait", sent=False)
        try:
            if slot is None or not isinstance(authorization, bytes):
                return authorization if isinstance(authorization, Fault) else progress.expired()
            upload = NOTHING
            if call.body or call.stream is not None:
                upload = Upload(call.body, call.stream, call.headers)
            sending = Sending(
                call, self._target(call), authorization, upload, progress, started, deadline, slot
            )
            multiplexed = self._multiplexed
            if multiplexed is not None and multiplexed.spoken:
                result = await multiplexed.exchange(sending)
                if result is not None:
                    if self._pool.queued:
                        self._widen(multiplexed)
                    return result
                self._take_spare(multiplexed)
            with trio.move_on_at(deadline):
                return await self._over_a_connection(sending)
            return progress.expired()
        finally:
            if slot is not None:
                slot.give_back()

    def _take_spare(self, multiplexed: Multiplexed) -> None:
        """Go on over HTTP/1.1 with what was opened for HTTP/2."""
        while multiplexed.spare:
            self._pool.rest(multiplexed.spare.pop())
        self._pool.allow(self._limits.bank_connections)

    def _slot(self) -> Slot | None:
        """Return a slot without waiting; a bank that speaks HTTP/2 says itself how much it takes."""
        pool, multiplexed = self._pool, self._multiplexed
        slot = pool.take()
        if slot is None and multiplexed is not None:
            self._widen(multiplexed)
            slot = pool.take()
        return slot

    def _widen(self, multiplexed: Multiplexed) -> None:
        """Allow as many exchanges at once as the bank is known to take by now."""
        self._pool.allow(max(self._limits.bank_connections, multiplexed.most))

    async def _over_a_connection(self, sending: Sending) -> BankAnswer | Fault:
        call, progress = sending.call, sending.progress
        connection = self._pool.reuse()
        if connection is not None:
            result = await self._over(connection, sending)
            again = call.repeatable and call.method == "GET" and not progress.received
            if not (isinstance(result, Fault) and result.check == "bank.reset" and again):
                return result
            self._observer.note("bank.sent_again")
        fresh = await self._open(progress)
        if isinstance(fresh, Fault):
            return fresh
        return await self._over(fresh, sending)

    async def _open(
        self, progress: Progress, context: ssl.SSLContext | None = None
    ) -> TlsConnection | Fault:
        progress.stage = "connect"
        try:
            return await self._pool.fresh(context)
        except ssl.SSLError as untrusted:
            return bank_failure("bank.tls", f"TLS: {untrusted}", sent=progress.sent)
        except OSError as error:
            return bank_failure("bank.unreachable", f"connect: {error}", sent=progress.sent)
        except trio.TooSlowError:
            return bank_failure("bank.unreachable", "connect: no answer", sent=progress.sent)

    async def _over(self, connection: TlsConnection, sending: Sending) -> BankAnswer | Fault:
        """Exchange over one connection; it rests, is closed, or goes with the stream, whatever happens."""
        call, upload = sending.call, sending.upload
        reader = AnswerReader(self._limits.bank_header_octets, self._limits.bank_answer_octets)
        keep = False
        handed_over = False
        try:
            fault = await converse(
                connection, self._head(sending), upload, reader, sending.progress
            )
            if fault is not None:
                return fault
            body: list[bytes] = []
            most = self._limits.bank_answer_octets
            if call.stream_answer:
                most = self._limits.complete_answer_octets
            sending.progress.stage = "receiving"
            fault = await finish(connection, reader, body, most)
            if fault is not None:
                return fault
            stream = None
            if not reader.complete:
                stream = self._stream(connection, reader, b"".join(body), sending)
                handed_over = True
            keep = reader.reusable and upload.whole
            return BankAnswer(
                status=reader.status,
                headers=tuple(reader.headers),
                body=b"" if stream is not None else b"".join(body),
                stream=stream,
                bank_us=int((trio.current_time() - sending.started) * 1e6),
            )
        finally:
            if not handed_over:
                self._part(connection, keep=keep)

    def _part(self, connection: TlsConnection, *, keep: bool) -> None:
        if keep:
            self._pool.rest(connection)
        else:
            connection.close()

    def _stream(
        self,
        connection: TlsConnection,
        reader: AnswerReader,
        first: bytes,
        sending: Sending,
    ) -> AnswerStream:
        slot, upload = sending.slot.keep(), sending.upload

        def done(ended: TlsConnection, reusable: bool) -> None:  # noqa: FBT001 - a callback
            self._streams.discard(stream)
            self._part(ended, keep=reusable and upload.whole)
            slot.give_back()

        stream = AnswerStream(connection, reader, first, sending.deadline, done)
        self._streams.add(stream)
        return stream

    def _authorization(self, call: BankCall) -> bytes | None:
        """Return the header's value, empty for none; None where it must be waited for."""
        if call.bearer:
            return b"Bearer " + call.bearer.encode("ascii")
        return self._bearer.at_once(call.scope)

    def _head(self, sending: Sending) -> bytes:
        authorization = sending.authorization
        given: Headers = ((b"authorization", authorization),) if authorization else ()
        call = sending.call
        return request_head(
            call.method,
            sending.target,
            self._authority,
            (*given, *_with_accept(call.headers)),
            sending.upload.length,
        )

    def _target(self, call: BankCall) -> str:
        path = self._settings.base_paths.get(call.family, "") + call.path
        return f"{path}?{call.query}" if call.query else path

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep house until cancelled; then close every connection.

        Cancellation: the only way to end it.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_house)
                nursery.start_soon(self._health.run)
                task_status.started()
        finally:
            self.close()

    async def _keep_house(self) -> None:
        while True:
            await trio.sleep(_REAP_S)
            self._pool.reap()
            if self._multiplexed is not None:
                self._multiplexed.reap()
                self._widen(self._multiplexed)
            now = trio.current_time()
            for stream in [s for s in self._streams if s.deadline < now]:
                stream.close()
            self.reload()
            self._observer.gauge("hub_bank_busy", "Busy connections", self._pool.busy)
            self._observer.gauge("hub_bank_idle", "Resting connections", self._pool.idle)

    def reload(self) -> None:
        """Use changed certificate, key and CA files from now on; keep the old ones if the new ones are no good."""
        try:
            stamp = self._files()
            if isinstance(self._bearer, ApiKey):
                self._bearer.refresh()
            if stamp == self._stamp:
                return
            self._stamp = stamp
            context = client_context(self._settings)
            if isinstance(self._bearer, JwtAuth):
                self._bearer.subject = subject_of(self._settings.certificate.read_bytes())
        except (OSError, ValueError) as error:
            self._observer.note("bank.credentials_not_reloaded", why=str(error))
            return
        self._context = context
        self._pool.renew(context)
        if self._multiplexed is not None:
            self._context2 = client_context(self._settings, http2=True)
            self._multiplexed.retire()
        self._observer.note("bank.credentials_reloaded")

    def _files(self) -> tuple[tuple[int, int], ...]:
        paths: tuple[Path, ...] = (
            self._settings.ca,
            self._settings.certificate,
            self._settings.key,
        )
        return tuple((s.st_mtime_ns, s.st_size) for s in (path.stat() for path in paths))


def _with_accept(headers: Headers) -> Headers:
    for name, _ in headers:
        if name == b"accept":
            return headers
    return ((b"accept", b"application/json"), *headers)
