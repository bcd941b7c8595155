"""What became of a payment: read from the bank's answer, and written down; the same for the first sending and any other.

Theory. There are four outcomes. *Made*: the bank answered with a payment. *Refused*: it answered that it will not. *Unsent*:
provably nothing reached it, so the key is free again. *Unknown*: anything else; the share stays taken, and nobody guesses.

Source: errors.md sections 6 and 7; decisions.md section 3; architecture 5.
"""

import re
from datetime import date
from typing import Any, Final, Literal

import msgspec
import orjson

from hub.gateway.errors import GENERIC, bank_error
from hub.gateway.payment_kept import kept_of, word_of
from hub.model.event import Event, Kind, Verdict
from hub.model.fault import Fault, bank_fault
from hub.model.records import Attempt, Payment
from hub.model.terms import Face
from hub.state.keeper import Change, Drop, Put, Settle
from hub.upstream.bank import BankAnswer
from hub.upstream.faults import was_sent

State = Literal["made", "refused", "unsent", "unknown"]

_ID: Final = re.compile(r"[!-~]{1,40}")
"""A payment's id: it goes into a header and a path."""
_VERDICTS: Final[dict[str, Verdict]] = {
    "open": Verdict.ALLOWED,
    "made": Verdict.ALLOWED,
    "refused": Verdict.REFUSED,
    "unsent": Verdict.FAILED,
    "unknown": Verdict.UNKNOWN,
}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what became of a payment: the bank's ``data`` where it was made, else the Fault to answer."""

    state: State
    data: dict[str, Any] = {}
    fault: Fault | None = None


def judge(answer: BankAnswer | Fault, *, again: bool = False) -> Outcome:
    """Decide what a bank's answer says of a payment.

    Args:
        answer: To the order.
        again: It was sent before: a refusal counts only where it is of the order, and not of this sending.
    """
    if isinstance(answer, Fault):
        return unknown(answer) if was_sent(answer) else Outcome(state="unsent", fault=answer)
    if 200 <= answer.status < 300:
        data = payment_data(answer)
        return unknown(_bad(answer)) if data is None else Outcome(state="made", data=data)
    if not 400 <= answer.status < 500:
        return unknown(_bad(answer))
    fault = bank_error(answer, payment=True, finds=False)
    open_still = _perhaps(answer, fault) or (again and not _of_the_order(answer, fault))
    return Outcome(state="unknown" if open_still else "refused", fault=fault)


def _perhaps(answer: BankAnswer, fault: Fault) -> bool:
    """Tell whether the bank may well have the payment: it gave up waiting, or says that the key is in use.

    A code of its own with 409 (``Payment.DuplicateInFlight``) is about another payment: this one is refused.
    """
    return answer.status == 408 or (answer.status == 409 and fault.code in GENERIC)


def _of_the_order(answer: BankAnswer, fault: Fault) -> bool:
    """Tell whether a refusal is the word on an order that was sent before.

    A bank that is busy (429), does not take our credentials (401) or has the service switched off (404) has not looked the
    key up; a duplicate in flight (409) may be the first sending itself.
    """
    if answer.status == 403:
        return fault.code not in GENERIC and not fault.code.startswith("AccessToken.")
    return answer.status == 400


def unknown(why: Fault) -> Outcome:
    """Return the outcome of which nobody can say more; ``why`` keeps its check and its private text."""
    text = "The outcome of the payment is not known; ask for it by its idempotency key."
    fault = msgspec.structs.replace(why, status=500, code="GenericError", public=text)
    return Outcome(state="unknown", fault=fault)


def _bad(answer: BankAnswer) -> Fault:
    private = f"status {answer.status} (sent=yes)"
    return bank_fault(500, "GenericError", "", check="bank.error", private=private)


def payment_data(answer: BankAnswer) -> dict[str, Any] | None:
    """Return a bank's payment, or None for an answer that holds none."""
    try:
        data = orjson.loads(answer.body)["data"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    if not isinstance(data, dict) or not is_payment_id(data.get("id")):
        return None
    return {**data, "status": word_of(data.get("status"))}


def is_payment_id(value: object) -> bool:
    """Tell whether a value can be the id of a payment: 1 to 40 visible characters of ASCII."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """Hold when and on whose behalf an outcome is written.

    Attributes:
        now_ms: Milliseconds.
        day: Its date in the tenant's zone.
        anchored: Months are counted from the schedule's start.
        line_id: A fresh UUID, for the consent's history.
        interaction_id: Of the call, or made.
        face: Where it was decided.
        route: Of the call, or the action's name.
    """

    now_ms: int
    day: date
    anchored: bool
    line_id: str
    interaction_id: str
    face: Face
    route: str


def payment_event(kind: Kind, attempt: Attempt, state: str, at: Moment) -> Event:
    """Make the event of a payment: its intent, its outcome, or what it did to its consent."""
    organisation = attempt.draft.organisation_id if attempt.draft is not None else ""
    return Event(
        kind=kind,
        time_ms=at.now_ms,
        interaction_id=at.interaction_id,
        face=at.face,
        client_id=attempt.client_id,
        organisation_id=organisation,
        consent_id=attempt.consent_id,
        route=at.route,
        verdict=_VERDICTS[state],
        subject=attempt.payment_id or attempt.reservation,
        change=state,
    )


def made_payment(attempt: Attempt, data: dict[str, Any], now_ms: int) -> Payment | None:
    """Return the payment for the log; None where the attempt has no draft of it."""
    if attempt.draft is None:
        return None
    return msgspec.structs.replace(
        attempt.draft, id=str(data["id"]), response=kept_of(data), updated_ms=now_ms
    )


def closing(
    attempt: Attempt, version: int, outcome: Outcome, at: Moment, *, sealed: bytes = b"", due: int = 0
) -> tuple[tuple[Change, ...], Event]:  # fmt: skip
    """Return what writes an outcome: the changes, and its event.

    Args:
        attempt: As it was, with its draft.
        version: Of the attempt in the store.
        outcome: What became of it.
        at: Now.
        sealed: The answer, for a repetition.
        due: When an unknown one is to be sent again, if it can be, seconds.
    """
    payment = made_payment(attempt, outcome.data, at.now_ms) if outcome.state == "made" else None
    if outcome.state == "unknown":
        left = msgspec.structs.replace(
            attempt, state="unknown", due=due if attempt.question is not None else 0
        )
        return (Put(left, expect=version),), _outcome_event(left, outcome, at)
    ended = msgspec.structs.replace(
        attempt,
        state=outcome.state,
        payment_id=payment.id if payment is not None else "",
        sealed=sealed,
    )
    event = _outcome_event(ended, outcome, at)
    bare = msgspec.structs.replace(ended, draft=None, question=None)
    kept: Change = Put(bare, expect=version)
    if outcome.state == "unsent":
        kept = Drop("attempt", attempt.id, expect=version)
    logged = () if payment is None else (Put(payment, expect=0),)
    status = "Rejected" if payment is None else payment.status
    return (kept, *logged, _settle(attempt, status, at)), event


def _outcome_event(attempt: Attempt, outcome: Outcome, at: Moment) -> Event:
    """Make the event of an outcome; where it is not that the payment was made, it names the check that says why."""
    event = payment_event(Kind.OUTCOME, attempt, outcome.state, at)
    check = outcome.fault.check if outcome.fault is not None else ""
    return msgspec.structs.replace(event, check=check)


def _settle(attempt: Attempt, status: str, at: Moment) -> Settle:
    told = payment_event(Kind.CONSENT, attempt, "made", at)
    return Settle(
        consent_id=attempt.consent_id,
        payment=attempt.reservation,
        status=status,
        now_ms=at.now_ms,
        day=at.day,
        line_id=at.line_id,
        event=told,
        anchored=at.anchored,
        attempted=attempt.created,
    )
