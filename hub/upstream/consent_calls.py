"""What the Hub asks and tells the bank about consents: validate before one is stored, augment, and events.

Source: ozone-connect 1.6, 2, 3.4, 3.5; decisions.md sections 1 and 2.
"""

from base64 import b64encode
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from hub.config import Settings
from hub.model.clock import Clock, Dice
from hub.model.consent import Consent
from hub.model.consent_change import with_data
from hub.model.consent_record import consent_record
from hub.model.fault import Fault, caller_fault, hub_fault
from hub.model.http import Headers
from hub.model.records import Delivery
from hub.model.shape import AMOUNT, boolean, date_time, items, members, number, one_of, text
from hub.observe import Observer
from hub.upstream.bank import Bank, BankAnswer, BankCall
from hub.upstream.outbox import Target

_TEXT_MOST: Final = 400
_AUGMENTED: Final = members(
    {},
    {
        "Charges": items(
            members(
                {
                    "ChargeBearer": one_of("BorneByCreditor", "BorneByDebtor", "Shared"),
                    "Type": one_of("VAT", "Fees"),
                    "Amount": AMOUNT,
                }
            )
        ),
        "ExchangeRate": members(
            {
                "UnitCurrency": text(3, 3, "[A-Z]{3}"),
                "ExchangeRate": number,
                "RateType": one_of("Actual", "Agreed", "Indicative"),
            },
            {"ContractIdentification": text(1, 256), "ExpirationDateTime": date_time},
        ),
        "OpenFinanceBilling": members({"IsLargeCorporate": boolean}),
    },
    closed=False,
)


def consent_headers(consent: Consent, provider_id: str, interaction_id: str) -> Headers:
    """Return the headers of consent events and actions; the customer's only once it is known."""
    tpp = consent.tpp
    fields = {
        "o3-provider-id": provider_id,
        "o3-aspsp-id": provider_id,
        "o3-caller-org-id": str(tpp.get("orgId", consent.organisation_id)),
        "o3-caller-client-id": str(tpp.get("clientId", consent.client_id)),
        "o3-caller-software-statement-id": str(tpp.get("softwareStatementId", "")),
        "o3-api-uri": urlsplit(consent.request_url).path or "/par",
        "o3-api-operation": "POST",
        "o3-ozone-interaction-id": interaction_id,
        "o3-consent-id": consent.id,
        "content-type": "application/json",
    }
    caller = consent.request_headers.get("x-fapi-interaction-id", "")
    if caller:
        fields["o3-caller-interaction-id"] = caller
    if consent.psu_identifiers:
        known = orjson.dumps(consent.psu_identifiers)
        fields["o3-psu-identifier"] = b64encode(known).decode()
    return tuple((name.encode(), value.encode()) for name, value in fields.items())


class ConsentCalls:
    """Ask and tell the bank."""

    def __init__(
        self, *, bank: Bank, settings: Settings, clock: Clock, dice: Dice, observer: Observer
    ) -> None:
        """Take the way to the bank and what each call names."""
        self._bank = bank
        self._settings = settings
        self._clock = clock
        self._dice = dice
        self._observer = observer

    async def validate(self, consent: Consent) -> Fault | None:
        """Ask whether the bank would accept a consent that is not stored yet; None means it would.

        Faults: 400 ``invalid_authorization_details`` if it would not; 503 ``temporarily_unavailable`` without a usable
        answer, unless the tenant accepts silence.

        Cancellation: harmless.
        """
        answer = await self._ask("/consent/action/validate", consent)
        verdict = _verdict(answer)
        if verdict is None:
            return self._silent(answer)
        if verdict["status"] == "valid":
            return None
        told = [str(verdict[name]) for name in ("code", "description") if verdict.get(name)]
        shown = ": ".join(told)[:_TEXT_MOST] or "the bank does not accept this consent"
        return caller_fault(
            400,
            "invalid_authorization_details",
            "".join(
                c if c.isascii() and c.isprintable() and c not in '"\\' else " " for c in shown
            ),
            check="bank.validate",
        )

    def _silent(self, answer: BankAnswer | Fault) -> Fault | None:
        why = answer.check if isinstance(answer, Fault) else f"status {answer.status}"
        self._observer.note("bank.validate_silent", why=why)
        if self._settings.bank.validate_silence == "accept":
            return None
        return hub_fault(
            503,
            "temporarily_unavailable",
            "The bank could not be asked about this consent; try again later.",
            check="bank.validate_silent",
            private=why,
        )

    async def announce(self, consent: Consent) -> Fault | None:
        """Tell the bank that a file will come under a consent to a file of payments; nothing for any other consent.

        Faults: 400 ``invalid_authorization_details`` if the bank refuses; 503 ``temporarily_unavailable`` if it cannot
        be asked.

        Cancellation: the bank may await the file.
        """
        control = consent.request.get("consent", {}).get("ControlParameters") or {}
        file = (control.get("ConsentSchedule") or {}).get("FilePayment")
        if not file:
            return None
        fields = dict(
            consent_headers(consent, self._settings.tenant.provider_id, self._dice.uuid())
        )
        fields.setdefault(b"o3-psu-identifier", b64encode(b"{}"))
        answer = await self._bank.exchange(
            BankCall(
                method="POST",
                path="/payment-consents",
                family="service-initiation",
                headers=tuple(fields.items()),
                body=orjson.dumps({"consentId": consent.id, "request": file}),
                scope="payments",
                deadline_ms=round(self._settings.limits.bank_validate_s * 1000),
            )
        )
        if isinstance(answer, Fault) or answer.status >= 500:
            why = answer.check if isinstance(answer, Fault) else f"status {answer.status}"
            text = "The bank could not be told about this file; try again later."
            return hub_fault(
                503, "temporarily_unavailable", text, check="bank.announce_silent", private=why
            )
        if 200 <= answer.status < 300:
            return None
        text = "the bank does not await this file"
        return caller_fault(400, "invalid_authorization_details", text, check="bank.announce")

    async def augment(self, consent: Consent) -> Consent | Fault:
        """Ask for charges and rates and merge them into ``consentBody.Data``.

        Faults: those of ``Bank.exchange``, and ``bank.malformed`` for an answer of another shape.

        Cancellation: harmless.
        """
        answer = await self._ask("/consent/action/augment", consent)
        if isinstance(answer, Fault):
            return answer
        found = _json(answer.body)
        if answer.status != 200 or _AUGMENTED(found) is not None:
            return hub_fault(
                503,
                "temporarily_unavailable",
                "The bank could not be asked about this consent; try again later.",
                check="bank.malformed",
                private=f"augment answered {answer.status}",
            )
        data: dict[str, Any] = {
            name: found[name]
            for name in ("Charges", "ExchangeRate", "OpenFinanceBilling")
            if name in found
        }
        billing = consent.body.get("Data", {}).get("OpenFinanceBilling", {})
        if "OpenFinanceBilling" in data:
            data["OpenFinanceBilling"] = {**billing, **data["OpenFinanceBilling"]}
        return with_data(consent, **data) if data else consent

    async def tell(self, consent: Consent, operation: str) -> BankAnswer | Fault:
        """Send a consent event; ``operation`` is ``post`` or ``patch``.

        Faults: those of ``Bank.exchange``. An answer other than 204 is the caller's to judge.

        Cancellation: the bank may have taken the event.
        """
        seconds = self._settings.limits.bank_event_s
        return await self._ask(f"/consent/event/{operation}", consent, seconds)

    async def _ask(self, path: str, consent: Consent, seconds: float = 0.0) -> BankAnswer | Fault:
        body = orjson.dumps(consent_record(consent, self._clock.now()))
        provider_id = self._settings.tenant.provider_id
        return await self._bank.exchange(
            BankCall(
                method="POST",
                path=path,
                family="events",
                headers=consent_headers(consent, provider_id, self._dice.uuid()),
                body=body,
                scope="consents",
                deadline_ms=int((seconds or self._settings.limits.bank_validate_s) * 1000),
            )
        )


def bank_target(calls: ConsentCalls) -> Target:
    """Return the outbox's target ``bank``: told of every consent."""

    async def send(consent: Consent, delivery: Delivery) -> int | Fault:
        answer = await calls.tell(consent, delivery.operation)
        return answer if isinstance(answer, Fault) else answer.status

    return Target(wants=lambda _consent: True, send=send)


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _verdict(answer: BankAnswer | Fault) -> dict[str, Any] | None:
    """Return the ``data`` of a usable answer to validate."""
    if isinstance(answer, Fault) or answer.status != 200:
        return None
    body = _json(answer.body)
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, dict) or data.get("status") not in {"valid", "invalid"}:
        return None
    return data
