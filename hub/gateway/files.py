"""Files of payments: taken in while the consent awaits its customer, and the report on what became of them.

The Hub does not read a file. It holds it in memory, within the route's bound, until it is all there: only then can its hash be
compared with the one the customer will approve, and no octet of a wrong file reaches the bank. A file may be sent again as
long as it is the same one; another one under the same consent is refused by its hash, whatever its idempotency key.

Source: routes.md T10, T12; decisions.md section 3 (file consents).
"""

import hmac
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Final

import msgspec

from hub.gateway.enrich import bank_path, o3_headers
from hub.gateway.errors import bank_error
from hub.gateway.idempotency import idempotency_key
from hub.gateway.values import Access, Call, Reply
from hub.model.consent import Consent, Status, status_at
from hub.model.fault import Fault, bank_fault, caller_fault
from hub.model.payment_file import file_note, file_of
from hub.model.records import Payment, Setting
from hub.state.keeper import Keeper, Put
from hub.upstream.bank import Bank, BankCall

FILE_PAYMENT: Final = "cbuae-file-payment"
ONE_PAYMENT: Final = "cbuae-payment"
_OCTETS: Final = b"application/octet-stream"
_TYPE_MOST: Final = 200


def payment_type(path: str) -> str:
    """Return what kind of payment a path of the payment family is about: one, or a file of them."""
    return FILE_PAYMENT if "/file-payments" in path else ONE_PAYMENT


class Files:
    """Hand files to the bank, and its reports to TPPs."""

    def __init__(self, *, keeper: Keeper, bank: Bank, provider_id: str) -> None:
        """Take the payment log, the bank, and the bank's code."""
        self._keeper = keeper
        self._bank = bank
        self._provider_id = provider_id

    async def upload(self, call: Call, access: Access) -> Reply | Fault:
        """Hand a file to the bank that is the one its consent announces.

        Args:
            call: Its request's body is the file.
            access: With the consent that the path names.

        Faults: 400 ``Resource.InvalidFormat`` (key), ``Consent.Invalid`` (no file is awaited),
        ``Consent.FailsControlParameters`` (another file); the bank's own.

        Cancellation: the bank may have the file.
        """
        key = idempotency_key(call)
        fault = key if isinstance(key, Fault) else _unfit(call, access)
        if fault is not None:
            return fault
        kind = call.request.header(b"content-type") or _OCTETS
        if len(kind) > _TYPE_MOST:
            return caller_fault(415, "", "", check="request.content_type")
        answer = await self._bank.exchange(
            BankCall(
                method="POST",
                path=bank_path(call.route.bank_path, call.parameters),
                family=call.route.bank_family,
                headers=(*o3_headers(call, access, self._provider_id), (b"content-type", kind)),
                body=call.request.body,
                scope=" ".join(call.route.scopes),
                deadline_ms=call.route.deadline_ms,
            )
        )
        if isinstance(answer, Fault):
            return answer
        if not 200 <= answer.status < 300:
            return bank_error(answer, payment=False, finds=call.route.finds)
        taken = () if access.consent is None else (Put(file_note(access.consent, taken=True)),)
        return Reply(status=call.route.success, changes=taken)

    async def report(self, call: Call, access: Access) -> Reply | Fault:
        """Return the bank's report on a file payment of the client's own, as it is: a long one as it comes.

        Faults: 404 for a payment that is unknown, another client's or of no file; the bank's own.

        Cancellation: harmless.
        """
        found = await self._keeper.lookup(Payment, call.parameters["PaymentId"])
        if (
            found is None
            or found[0].client_id != access.caller.client_id
            or found[0].payment_type != FILE_PAYMENT
        ):
            return caller_fault(404, "", "", check="payment.unknown")
        consent = await self._keeper.lookup(Consent, found[0].consent_id)
        whole = msgspec.structs.replace(access, consent=consent[0] if consent else None)
        named = tuple(
            (n, b"*/*" if n == b"accept" else v)
            for n, v in o3_headers(call, whole, self._provider_id)
        )
        answer = await self._bank.exchange(
            BankCall(
                method="GET",
                path=bank_path(call.route.bank_path, call.parameters),
                family=call.route.bank_family,
                headers=named,
                scope=" ".join(call.route.scopes),
                deadline_ms=call.route.deadline_ms,
                repeatable=True,
                stream_answer=True,
            )
        )
        if isinstance(answer, Fault):
            return answer
        if not 200 <= answer.status < 300:
            forgo(answer.stream)
            return bank_error(answer, payment=False, finds=call.route.finds)
        kind = answer.header(b"content-type") or _OCTETS
        if len(kind) > _TYPE_MOST:
            forgo(answer.stream)
            text = "The bank's answer cannot be read."
            return bank_fault(500, "GenericError", text, check="bank.content_type")
        size = answer.header(b"content-length") or b""
        coding = answer.header(b"content-encoding")
        return Reply(
            status=call.route.success,
            headers=() if coding is None else ((b"content-encoding", coding[:_TYPE_MOST]),),
            octets=answer.body,
            stream=answer.stream,
            size=int(size) if size.isdigit() else 0,
            media=kind,
        )


async def missing_file(keeper: Keeper, consent: Consent | None) -> Fault | None:
    """Return why a file payment cannot be made yet, or None: the bank has not taken the file that its consent announces.

    Cancellation: harmless.
    """
    if consent is None or file_of(consent) is None:
        return None
    awaited = file_note(consent, taken=False)
    held = await keeper.lookup(Setting, awaited.key)
    if held is None or held[0] != awaited:
        return None
    text = "The file that the consent announces was not uploaded."
    return caller_fault(400, "Consent.FailsControlParameters", text, check="file.missing")


def forgo(stream: AsyncIterator[bytes] | None) -> None:
    """End what is not handed on of the bank's answer: it would hold its connection until its deadline."""
    close = getattr(stream, "close", None)
    if close is not None:
        close()


def _unfit(call: Call, access: Access) -> Fault | None:
    """Return why this file is not the one that the consent awaits, or None."""
    consent, file = access.consent, file_of(access.consent)
    if consent is None or file is None:
        text = "The consent is not to a file of payments."
        return caller_fault(400, "Consent.Invalid", text, check="file.consent")
    if status_at(consent, call.now) is not Status.AWAITING:
        text = "A file is taken while its consent awaits authorization."
        return caller_fault(400, "Consent.Invalid", text, check="file.status")
    digest = b64encode(sha256(call.request.body).digest())
    if not hmac.compare_digest(digest, str(file.get("FileHash", "")).encode()):
        text = "The file does not have the hash that the consent names."
        return caller_fault(400, "Consent.FailsControlParameters", text, check="file.hash")
    return None
