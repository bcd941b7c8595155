"""The payment log: what the bank reads of payments made under a consent, and the status it pushes.

Source: hub-apis 3.7; decisions.md section 3 (payment log).
"""

from datetime import date
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import trio

from hub.lfi.consents import consent_event, unknown
from hub.lfi.shell import Call, Done, Shell
from hub.model.consent_change import date_time_of
from hub.model.event import Kind
from hub.model.fault import Fault, caller_fault
from hub.model.limits import hundredths
from hub.model.payment_patch import apply_payment_patch, read_payment_patch, shown_response
from hub.model.period import local_date
from hub.model.records import Payment
from hub.state.keeper import Invalidation, Put, Query, Settle

_MOST: Final = 1000
_PATIENCE_S: Final = 2.0
"""How long a payment is waited for of which the bank already speaks, while some order is not answered."""


class PaymentLog:
    """Decide the operations on payments; the shell commits them."""

    def __init__(self, shell: Shell, time_zone: str, *, anchored: bool = False) -> None:
        """Take the shell, for its keeper, the tenant's time zone, and whether its months are counted from a start."""
        self._keeper = shell.keeper
        self._clock = shell.clock
        self._zone = ZoneInfo(time_zone)
        self._anchored = anchored

    async def list(self, call: Call) -> Done | Fault:
        """List the payments of a consent, oldest first; of more than a thousand the newest, as the list has no pages."""
        consent_id = call.query.get("consentId", "")
        if not consent_id:
            return caller_fault(
                400,
                "Resource.InvalidFormat",
                "consentId: is required",
                check="lfi.query",
                path="consentId",
            )
        page = await self._keeper.search(
            Query(
                kind="payment",
                where=(("consent", consent_id),),
                order="created",
                descending=True,
                limit=_MOST,
            )
        )
        found = [item.record for item in reversed(page.items)]
        payments = [record for record in found if isinstance(record, Payment)]
        body = {"data": [payment_entry(payment) for payment in payments], "meta": {}}
        # What names nothing here may be anything, and is not recorded.
        return Done(status=200, body=body, consent_id=consent_id if payments else "")

    async def patch(self, call: Call) -> Done | Fault:
        """Take the bank's word on a payment; one that is being ordered may be a moment away from the log."""
        body = call.json()
        fields = body if isinstance(body, Fault) else read_payment_patch(body)
        found = await self._keeper.lookup(Payment, call.parameters["id"])
        if found is None and not isinstance(fields, Fault):
            found = await self._awaited(call.parameters["id"])
            call = msgspec.structs.replace(call, now_ms=max(call.now_ms, self._clock.now_ms()))
        if found is None:
            return unknown("id")
        if isinstance(fields, Fault):
            return fields
        payment, version = found
        changed = apply_payment_patch(payment, fields, call.now_ms)
        if isinstance(changed, Fault):
            return changed
        if changed is payment:
            return Done(consent_id=payment.consent_id, subject=payment.id)
        return Done(
            changes=(Put(changed, version), self._settle(call, payment, changed)),
            kind=Kind.OUTCOME,
            consent_id=payment.consent_id,
            subject=payment.id,
            change=f"{payment.status}>{changed.status}",
        )

    async def _awaited(self, payment_id: str) -> tuple[Payment, int] | None:
        """Wait for a payment that the bank speaks of before its order was answered and written; None if none comes."""
        query = Query(kind="attempt", where=(("state", "open"),), limit=1)
        if not (await self._keeper.search(query)).items:
            return await self._keeper.lookup(Payment, payment_id)
        changed = trio.Event()

        def heard(one: Invalidation) -> None:
            if one.kind == "payment" and one.key in {"", payment_id}:
                changed.set()

        end = self._keeper.watch(heard)
        try:
            with trio.move_on_after(_PATIENCE_S):
                while True:
                    found = await self._keeper.lookup(Payment, payment_id)
                    if found is not None:
                        return found
                    await changed.wait()
                    changed = trio.Event()
        finally:
            end()
        return None

    def _settle(self, call: Call, before: Payment, payment: Payment) -> Settle:
        """Return what the payment's status does to its share and its consent."""
        rejected = payment.status == "Rejected" != before.status
        return Settle(
            consent_id=payment.consent_id,
            payment=payment.reservation,
            status=payment.status,
            now_ms=call.now_ms,
            day=local_date(call.now, self._zone),
            line_id=call.dice.uuid(),
            event=consent_event(call, payment.consent_id, "payment-log.patch"),
            anchored=self._anchored,
            undone=_counted(payment) if rejected else None,
        )


def _counted(payment: Payment) -> tuple[int, date] | None:
    """Return what a payment took of its consent's limits, and the day that it counts for."""
    amount = hundredths(payment.amount)
    return (amount, date.fromisoformat(payment.date)) if amount and payment.date else None


def payment_entry(payment: Payment) -> dict[str, Any]:
    """Return a payment as the log shows it."""
    interaction = {
        "ozoneInteractionId": payment.interaction_id,
        "clientInteractionId": payment.client_interaction_id,
    }
    entry: dict[str, Any] = {
        "consentId": payment.consent_id,
        "paymentType": payment.payment_type,
        "paymentId": payment.id,
        "idempotencyKey": payment.idempotency_key,
        "paymentResponse": {
            **shown_response(payment.response),
            "id": payment.id,
            "status": payment.status,
        },
        "tpp": payment.tpp,
        "accountId": payment.account_id,
        "psuIdentifiers": payment.psu_identifiers,
        "interactionId": {name: value for name, value in interaction.items() if value},
        "authorizationCode": {
            "paymentId": payment.id,
            "accessTokenHash": payment.access_token_hash,
            "currentDateTime": date_time_of(payment.created_ms // 1000),
        },
        "requestBody": payment.request_body,
        "requestHeaders": payment.request_headers,
    }
    signed = {
        "signedRequestBody": payment.signed_request,
        "signedResponse": payment.signed_response,
    }
    return entry | {name: value for name, value in signed.items() if value}
