"""Payments as the TPP sees them: the answer to an order, a payment read, a payment found by its key.

Source: routes.md T7, T8; decisions.md section 3.
"""

from typing import Any

import msgspec

from hub.contract import Context, Contract
from hub.gateway.enrich import bank_path, o3_headers
from hub.gateway.files import FILE_PAYMENT, payment_type
from hub.gateway.idempotency import DAY_S, idempotency_key, use_name
from hub.gateway.payment_outcome import payment_data
from hub.gateway.values import Access, Call, Reply
from hub.model.consent import Consent
from hub.model.fault import Fault, caller_fault
from hub.model.http import Headers
from hub.model.records import Attempt, Payment
from hub.state.keeper import Keeper
from hub.upstream.bank import Bank, BankCall


class PaymentView:
    """Show the payments of one tenant."""

    def __init__(
        self,
        *,
        keeper: Keeper,
        bank: Bank,
        contract: Contract,
        provider_id: str,
        resource_base: str,
    ) -> None:
        """Take the log, the bank that knows better, the mappers, and what links begin with."""
        self._keeper = keeper
        self._bank = bank
        self._contract = contract
        self._provider_id = provider_id
        self._base = resource_base

    def reply(self, call: Call, payment: Payment, answer: dict[str, Any]) -> Reply | Fault:
        """Return a payment as the TPP sees it."""
        base = f"{self._base}/open-finance/payment/{call.route.version}"
        file = payment.payment_type == FILE_PAYMENT
        url = f"{base}/{'file-payments' if file else 'payments'}/{payment.id}"
        asked = payment.request_body.get("Data", {})
        known = {
            name: asked[name] for name in ("Instruction", "OpenFinanceBilling") if name in asked
        }
        if file:
            answer = {**answer, "data": as_file(answer["data"])}
        related = f"{base}/payment-consents/{payment.consent_id}"
        context = Context(
            url=url, extra={**known, "ConsentId": payment.consent_id}, related=related
        )
        mapped = self._contract.mapper(call.route.mapper)(answer, context)
        if isinstance(mapped, Fault):
            return mapped
        currency = mapped["Data"].get("CurrencyRequest")
        if currency is not None:
            mapped["Data"]["CurrencyRequest"] = {**(asked.get("CurrencyRequest") or {}), **currency}
        headers: Headers = ()
        if call.route.success == 201:
            headers = (
                (b"location", url.encode()),
                (b"x-idempotency-key", payment.idempotency_key.encode()),
            )
        return Reply(status=call.route.success, value=mapped, headers=headers)

    async def read(self, call: Call, access: Access) -> Reply | Fault:
        """Return a payment of the client's, as the bank sees it now; from the log while the bank cannot say.

        Cancellation: harmless.
        """
        found = await self._keeper.lookup(Payment, call.parameters["PaymentId"])
        if (
            found is None
            or found[0].client_id != access.caller.client_id
            or found[0].payment_type != payment_type(call.route.path)
        ):
            return caller_fault(404, "", "", check="payment.unknown")
        payment = found[0]
        consent = await self._keeper.lookup(Consent, payment.consent_id)
        whole = msgspec.structs.replace(access, consent=consent[0] if consent else None)
        answer = await self._bank.exchange(
            BankCall(
                method="GET",
                path=bank_path(call.route.bank_path, call.parameters),
                family=call.route.bank_family,
                headers=o3_headers(call, whole, self._provider_id),
                scope=" ".join(call.route.scopes),
                deadline_ms=call.route.deadline_ms,
                repeatable=True,
            )
        )
        lawful = not isinstance(answer, Fault) and 200 <= answer.status < 300
        data = payment_data(answer) if lawful and not isinstance(answer, Fault) else None
        return self.reply(call, payment, {"data": data or payment.response})

    async def find(self, call: Call, access: Access) -> Reply | Fault:
        """Return where the payment of an idempotency key is.

        Cancellation: harmless.
        """
        key = idempotency_key(call)
        if isinstance(key, Fault):
            return key
        found = await self._keeper.lookup(Attempt, use_name(access.caller.client_id, key))
        if found is None or not found[0].payment_id or found[0].created + DAY_S <= call.now:
            return caller_fault(404, "", "", check="payment.key_unknown")
        payment = await self._keeper.lookup(Payment, found[0].payment_id)
        if payment is None or payment[0].payment_type != payment_type(call.route.path):
            return caller_fault(404, "", "", check="payment.key_unknown")
        url = f"{self._base}{call.route.path}/{found[0].payment_id}"
        return Reply(status=200, value={"Data": {}, "Links": {"Self": url}})


def as_file(data: dict[str, Any]) -> dict[str, Any]:
    """Return a bank's payment with what a file's has: its state is Received or Rejected, its instruction is the file."""
    kept = {k: v for k, v in data.items() if k != "instruction"}
    return {**kept, "status": "Rejected" if data.get("status") == "Rejected" else "Received"}
