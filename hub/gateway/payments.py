"""Payments: one share reserved, one request sent, one outcome written; never twice under one key, never guessed.

Theory. A payment is decided and its share of the consent's limits is taken in one commit, together with the intent and the
idempotency key's record, each with the version that was read: two requests cannot both take the last share or the same key.
Only then is the bank asked, once. What became of it is written before the answer: made (the payment is in the log), refused
(the share is given back), or unknown (the share stays taken until an operator settles it with the bank). A request that was
provably not sent leaves no trace but its events.

Source: routes.md T6 to T8; errors.md sections 6 and 7; decisions.md section 3; architecture 5.
"""

import hashlib
import hmac
from datetime import UTC, date, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import orjson

from hub.contract import Context, Contract
from hub.gateway.enrich import bank_path, o3_headers
from hub.gateway.errors import at_resources, bank_error
from hub.gateway.values import Access, Call, Reply
from hub.model.clock import Dice
from hub.model.consent import Consent
from hub.model.event import Event, Kind, Verdict
from hub.model.fault import Fault, bank_fault, caller_fault
from hub.model.http import Headers
from hub.model.limits import Allowance, hundredths, release, reserve, terms_of
from hub.model.payment_effect import settle_share, with_consumption
from hub.model.records import Attempt, Payment, digest_of
from hub.model.terms import Face
from hub.state.keeper import Change, Conflict, Keeper, Put
from hub.upstream.bank import Bank, BankAnswer, BankCall
from hub.upstream.faults import was_sent

_ATTEMPTS: Final = 20
_DAY_S: Final = 86_400
_SECRET: Final = frozenset({"authorization", "dpop", "cookie", "proxy-authorization"})
_PERHAPS: Final = frozenset({408, 409})
"""Statuses with which a bank may well have the payment: its outcome stays unknown."""
_SAME: Final = ("PaymentPurposeCode", "DebtorReference", "CreditorReference")


class Payments:
    """Make and read the payments of one tenant."""

    def __init__(
        self, *, keeper: Keeper, bank: Bank, contract: Contract, dice: Dice, provider_id: str,
        resource_base: str, time_zone: str,
    ) -> None:  # fmt: skip
        """Take what payments ask: the store, the bank, the mappers, names for shares, and the zone their days are of."""
        self._keeper = keeper
        self._bank = bank
        self._contract = contract
        self._dice = dice
        self._provider_id = provider_id
        self._base = resource_base
        self._zone = ZoneInfo(time_zone)

    async def make(self, call: Call, access: Access, body: dict[str, Any]) -> Reply | Fault:
        """Make a payment.

        Faults: 400 ``Resource.InvalidFormat`` (key), ``Consent.Invalid``, ``Consent.BusinessRuleViolation``,
        ``Consent.FailsControlParameters``; 409 for a key in use; the bank's own; 500 ``GenericError`` where the outcome is
        unknown.

        Cancellation: the intent stays; the outcome is then unknown.
        """
        fault = _consent_fault(call, access, body)
        if fault is not None:
            return fault
        attempt = await self._begin(call, access, body)
        if not isinstance(attempt, Attempt):
            return attempt
        answer = await self._bank.exchange(self._question(call, access, body))
        return await self._settle(call, access, body, attempt, answer)

    async def _begin(
        self, call: Call, access: Access, body: dict[str, Any]
    ) -> Attempt | Reply | Fault:
        """Take the share and the key, and write the intent; or say what an earlier use of the key came to."""
        key = idempotency_key(call)
        if isinstance(key, Fault):
            return key
        attempt = Attempt(
            id=attempt_id(access.caller.client_id, key),
            client_id=access.caller.client_id,
            consent_id=access.token.consent_id,
            digest=_digest(body, key),
            reservation=self._dice.uuid(),
            created=call.now,
        )
        for _ in range(_ATTEMPTS):
            held = await self._keeper.lookup(Attempt, attempt.id)
            if held is not None and held[0].created + _DAY_S > call.now:
                return await self._again(call, held[0], attempt)
            share = await self._share(access, body, attempt, self._day(call))
            if isinstance(share, Fault):
                return share
            changes = (share, Put(attempt, expect=held[1] if held else 0))
            done = await self._keeper.commit(changes, [_event(call, access, Kind.INTENT, attempt)])
            if isinstance(done, Fault):
                return at_resources(done)
            if not isinstance(done, Conflict):
                return attempt
        return _busy("payment.conflict")

    async def _share(
        self, access: Access, body: dict[str, Any], attempt: Attempt, day: date
    ) -> Put | Fault:
        consent = access.consent
        terms = terms_of(_control(consent)) if consent is not None else None
        amount = body["Data"]["Instruction"]["Amount"]
        asked = hundredths(amount["Amount"])
        if consent is None or terms is None or asked is None:
            text = "The consent allows no payment of this kind."
            return caller_fault(400, "Consent.Invalid", text, check="payment.terms")
        held = await self._keeper.lookup(Allowance, consent.id)
        taken, version = held or (Allowance(consent_id=consent.id), 0)
        reserved = reserve(terms, taken, attempt.reservation, asked, amount["Currency"], day)
        return reserved if isinstance(reserved, Fault) else Put(reserved, expect=version)

    async def _again(self, call: Call, held: Attempt, now: Attempt) -> Reply | Fault:
        """Answer another use of a key within its day."""
        if held.consent_id != now.consent_id or not hmac.compare_digest(held.digest, now.digest):
            text = "The idempotency key was used for another payment."
            return caller_fault(409, "GenericError", text, check="payment.key_reused")
        if held.state == "refused":
            text = "The payment was refused before."
            return caller_fault(held.status, held.code, text, check="payment.replay")
        found = await self._keeper.lookup(Payment, held.payment_id) if held.payment_id else None
        if found is None:
            return _busy("payment.in_flight")
        return self._reply(call, found[0], {"data": found[0].response})

    def _question(self, call: Call, access: Access, body: dict[str, Any]) -> BankCall:
        consent = access.consent
        envelope: dict[str, Any] = {
            "requestUrl": self._base + call.request.path,
            "paymentType": "cbuae-payment",
            "request": _for_bank(body),
            "requestHeaders": _headers(call),
            "tpp": access.caller.tpp_block(),
        }
        if consent is not None and consent.supplementary:
            envelope["supplementaryInformation"] = consent.supplementary
        json = (b"content-type", b"application/json")
        return BankCall(
            method="POST",
            path=call.route.bank_path,
            family=call.route.bank_family,
            headers=(*o3_headers(call, access, self._provider_id), json),
            body=orjson.dumps(envelope),
            scope=" ".join(call.route.scopes),
            bearer=consent.connect_token if consent is not None else "",
            deadline_ms=call.route.deadline_ms,
        )

    async def _settle(
        self, call: Call, access: Access, body: dict[str, Any], attempt: Attempt, answer: BankAnswer | Fault
    ) -> Reply | Fault:  # fmt: skip
        """Write what became of a payment, and answer it."""
        if isinstance(answer, Fault):
            if was_sent(answer):
                return await self._unknown(call, access, attempt, answer)
            await self._close(
                call, access, msgspec.structs.replace(attempt, state="refused", created=0), None
            )
            return answer
        data = _payment_data(answer) if 200 <= answer.status < 300 else None
        if data is not None:
            return await self._made(call, access, body, attempt, data)
        if not 400 <= answer.status < 500:
            private = f"status {answer.status} (sent=yes)"
            text = "The outcome of the payment is not known."
            fault = bank_fault(500, "GenericError", text, check="bank.error", private=private)
            return await self._unknown(call, access, attempt, fault)
        refused = bank_error(answer, payment=True, finds=False)
        if answer.status in _PERHAPS:
            known = msgspec.structs.replace(attempt, state="unknown")
            return await self._close(call, access, known, None) or refused
        known = msgspec.structs.replace(
            attempt, state="refused", status=refused.status, code=refused.code
        )
        await self._close(call, access, known, None)
        return refused

    async def _made(
        self, call: Call, access: Access, body: dict[str, Any], attempt: Attempt, data: dict[str, Any]
    ) -> Reply | Fault:  # fmt: skip
        payment = self._payment(call, access, body, attempt, data)
        made = msgspec.structs.replace(attempt, state="made", payment_id=payment.id)
        fault = await self._close(call, access, made, payment)
        return fault or self._reply(call, payment, {"data": data})

    async def _unknown(self, call: Call, access: Access, attempt: Attempt, why: Fault) -> Fault:
        """Leave the share taken and say so; never guess, never send again."""
        fault = await self._close(
            call, access, msgspec.structs.replace(attempt, state="unknown"), None
        )
        text = "The outcome of the payment is not known; ask for it by its idempotency key."
        return fault or msgspec.structs.replace(why, status=500, code="GenericError", public=text)

    async def _close(
        self, call: Call, access: Access, attempt: Attempt, payment: Payment | None
    ) -> Fault | None:
        """Write the outcome: the key's record, the payment, its share, what the consent has left."""
        for _ in range(_ATTEMPTS):
            changes = [Put(attempt), *await self._effects(call, attempt, payment)]
            event = _event(call, access, Kind.OUTCOME, attempt)
            done = await self._keeper.commit(changes, [event])
            if isinstance(done, Fault):
                return at_resources(done)
            if not isinstance(done, Conflict):
                return None
        return _busy("payment.conflict")

    async def _effects(self, call: Call, attempt: Attempt, payment: Payment | None) -> list[Change]:
        held = await self._keeper.lookup(Allowance, attempt.consent_id)
        found = await self._keeper.lookup(Consent, attempt.consent_id)
        if held is None or found is None or attempt.state == "unknown":
            return []
        if payment is None:
            return [Put(release(held[0], attempt.reservation), expect=held[1])]
        taken = settle_share(held[0], payment)
        consent = with_consumption(found[0], taken, call.now_ms, self._day(call))
        return [
            Put(payment, expect=0),
            Put(taken, expect=held[1]),
            *([Put(consent, expect=found[1])] if consent is not found[0] else []),
        ]

    def _payment(
        self, call: Call, access: Access, body: dict[str, Any], attempt: Attempt, data: dict[str, Any]
    ) -> Payment:  # fmt: skip
        consent, amount = access.consent, body["Data"]["Instruction"]["Amount"]
        return Payment(
            id=str(data["id"]),
            consent_id=attempt.consent_id,
            client_id=access.caller.client_id,
            organisation_id=access.caller.organisation_id,
            payment_type="cbuae-payment",
            idempotency_key=(call.request.header(b"x-idempotency-key") or b"").decode("latin-1"),
            created_ms=call.now_ms,
            updated_ms=call.now_ms,
            amount=amount["Amount"],
            currency=amount["Currency"],
            date=self._day(call).isoformat(),
            response=data,
            request_body=body,
            request_headers=_headers(call),
            tpp=access.caller.tpp_block(),
            account_id=next(iter(consent.account_ids), "") if consent is not None else "",
            psu_identifiers=(consent.psu_identifiers or {}) if consent is not None else {},
            interaction_id=call.interaction_id,
            client_interaction_id=call.interaction_id if call.sent_id else "",
            access_token_hash=access.token.digest,
            reservation=attempt.reservation,
        )

    def _reply(self, call: Call, payment: Payment, answer: dict[str, Any]) -> Reply | Fault:
        """Return a payment as the TPP sees it."""
        base = f"{self._base}/open-finance/payment/{call.route.version}"
        url = f"{base}/payments/{payment.id}"
        asked = payment.request_body.get("Data", {})
        known = {
            name: asked[name] for name in ("Instruction", "OpenFinanceBilling") if name in asked
        }
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
        if found is None or found[0].client_id != access.caller.client_id:
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
        data = _payment_data(answer) if lawful and not isinstance(answer, Fault) else None
        return self._reply(call, payment, {"data": data or payment.response})

    async def find(self, call: Call, access: Access) -> Reply | Fault:
        """Return where the payment of an idempotency key is.

        Cancellation: harmless.
        """
        key = idempotency_key(call)
        if isinstance(key, Fault):
            return key
        found = await self._keeper.lookup(Attempt, attempt_id(access.caller.client_id, key))
        if found is None or not found[0].payment_id or found[0].created + _DAY_S <= call.now:
            return caller_fault(404, "", "", check="payment.key_unknown")
        url = f"{self._base}{call.route.path}/{found[0].payment_id}"
        return Reply(status=200, value={"Data": {}, "Links": {"Self": url}})

    def _day(self, call: Call) -> date:
        return datetime.fromtimestamp(call.now, UTC).astimezone(self._zone).date()


def idempotency_key(call: Call) -> str | Fault:
    """Return the request's idempotency key: 1 to 40 visible characters.

    Faults: 400 ``Resource.InvalidFormat``.
    """
    values = call.request.header_values(b"x-idempotency-key")
    text = values[0].decode("latin-1") if len(values) == 1 else ""
    if 1 <= len(text) <= 40 and text.isascii() and text.isprintable() and " " not in text:
        return text
    what = "x-idempotency-key: expected 1 to 40 visible characters"
    return caller_fault(400, "Resource.InvalidFormat", what, check="request.idempotency_key")


def attempt_id(client_id: str, key: str) -> str:
    """Return the key under which the use of an idempotency key is stored."""
    return digest_of(f"{client_id}\x00{key}")


def _digest(body: dict[str, Any], key: str) -> str:
    """Return the hash of a message, keyed so that what is stored says nothing of it."""
    canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    return hmac.new(key.encode(), canonical, hashlib.sha256).hexdigest()


def _consent_fault(call: Call, access: Access, body: dict[str, Any]) -> Fault | None:
    consent_id, named = access.token.consent_id, call.request.header(b"x-consent-id")
    ids = {body["Data"]["ConsentId"], *([named.decode("latin-1")] if named is not None else [])}
    if ids != {consent_id} or access.consent is None:
        text = "The payment names another consent than the token's."
        return caller_fault(400, "Consent.Invalid", text, check="payment.consent")
    asked = access.consent.request.get("consent", {})
    if "SinglePayment" not in (_control(access.consent).get("ConsentSchedule") or {}):
        return None
    for name in _SAME:
        if body["Data"].get(name) != asked.get(name):
            text = f"/Data/{name}: differs from the consent"
            code = "Consent.BusinessRuleViolation"
            return caller_fault(400, code, text, check="payment.differs", path=f"/Data/{name}")
    return None


def _control(consent: Consent) -> dict[str, Any]:
    control = consent.request.get("consent", {}).get("ControlParameters", {})
    return control if isinstance(control, dict) else {}


def _headers(call: Call) -> dict[str, str]:
    """Return the TPP's headers without credentials, as the bank and the payment log want them."""
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in call.request.headers
        if name.decode("latin-1") not in _SECRET
    }


def _for_bank(body: dict[str, Any]) -> dict[str, Any]:
    """Return the message as the bank's closed schema wants it: the quote's id stands one level higher."""
    data = dict(body["Data"])
    currency = dict(data.get("CurrencyRequest") or {})
    quote = currency.pop("FxQuoteId", None)
    if quote is not None:
        data |= {"CurrencyRequest": currency, "FxQuoteId": quote}
    return {**body, "Data": data}


def _payment_data(answer: BankAnswer) -> dict[str, Any] | None:
    """Return a bank's payment, or None for an answer that holds none."""
    try:
        data = orjson.loads(answer.body)["data"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    lawful = (
        isinstance(data, dict) and isinstance(data.get("id"), str) and 0 < len(data["id"]) <= 40
    )
    return data if lawful else None


def _busy(check: str) -> Fault:
    text = "A payment under this key is being made, or its outcome is not known yet."
    return caller_fault(409, "GenericRecoverableError", text, check=check)


def _event(call: Call, access: Access, kind: Kind, attempt: Attempt) -> Event:
    verdicts = {"made": Verdict.ALLOWED, "open": Verdict.ALLOWED, "refused": Verdict.REFUSED}
    return Event(
        kind=kind,
        time_ms=call.now_ms,
        interaction_id=call.interaction_id,
        face=Face.TPP,
        client_id=access.caller.client_id,
        organisation_id=access.caller.organisation_id,
        consent_id=attempt.consent_id,
        route=call.route.id,
        verdict=verdicts.get(attempt.state, Verdict.UNKNOWN),
        subject=attempt.payment_id or attempt.reservation,
        change=attempt.state,
    )
