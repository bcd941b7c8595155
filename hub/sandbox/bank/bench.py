"""The test bench: a page that makes the bank misbehave, and blocks or unblocks an account; a sandbox's tool, no login."""

from typing import Final, final

import msgspec

from hub.sandbox.bank.book import Book
from hub.sandbox.bank.people import ACCOUNTS
from hub.sandbox.bank.rendering import Form, Renderer, field
from hub.sandbox.bank.sessions import Session
from hub.sandbox.site import NO_FAULT, FaultPlan, Faults, SiteResponse

KINDS: Final = (
    ("", "answer as usual"),
    ("wrong_shape", "answer with JSON of another shape"),
    ("half_answer", "send half of the answer"),
    ("goaway", "answer, then end the connection (GOAWAY)"),
    ("reset", "do what was asked, then reset without an answer"),
    ("close", "end the connection before anything is done"),
)
STATES: Final = ("Active", "Suspended", "Inactive", "Dormant", "Closed", "Deceased", "Unclaimed")
_LONGEST_MS: Final = 120_000


def plan_of(form: Form) -> FaultPlan | None:
    """Return the fault that a form describes, or None where a field makes no sense."""
    numbers = [field(form, name) or "0" for name in ("times", "latency", "status")]
    if not all(text.isascii() and text.isdigit() and len(text) <= 6 for text in numbers):
        return None
    times, latency, status = map(int, numbers)
    kind = field(form, "kind")
    path = field(form, "path") or "/"
    lawful_status = status == 0 or 200 <= status <= 599
    if not lawful_status or latency > _LONGEST_MS or kind not in dict(KINDS) or path[0] != "/":
        return None
    plan = FaultPlan(path=path, times=times, latency_s=latency / 1000, status=status)
    return msgspec.structs.replace(plan, **{kind: True}) if kind else plan


def in_words(plan: FaultPlan) -> str:
    """Say what a fault does."""
    if plan is NO_FAULT:
        return "behaving well"
    parts = [f"{plan.path}…"]
    if plan.latency_s:
        parts.append(f"wait {plan.latency_s:g} s")
    if plan.status:
        parts.append(f"status {plan.status}")
    parts += [words for kind, words in KINDS if kind and getattr(plan, kind)]
    parts.append(f"for {plan.times} requests" if plan.times else "until cleared")
    return ", ".join(parts)


@final
class Bench:
    """Show the knobs, and turn them."""

    __slots__ = ("_book", "_faults", "_show")

    def __init__(self, *, book: Book, faults: Faults, show: Renderer) -> None:
        """Take the book, the knobs of Ozone Connect, and what renders."""
        self._book = book
        self._faults = faults
        self._show = show

    def page(self, session: Session, done: str = "", problem: str = "") -> SiteResponse:
        """Show the page."""
        return self._show.page(
            "bench.html",
            400 if problem else 200,
            session,
            now=in_words(self._faults.plan),
            kinds=KINDS,
            accounts=[self._book.account(account_id) for account_id in ACCOUNTS],
            states=STATES,
            done=done,
            problem=problem,
        )

    async def change(self, session: Session, form: Form) -> SiteResponse:
        """Turn a knob."""
        match field(form, "do"):
            case "clear":
                self._faults.clear()
                return self.page(session, done="The bank behaves well again.")
            case "state":
                return self._state(session, field(form, "account"), field(form, "state"))
            case _:
                return self._set(session, form)

    def _set(self, session: Session, form: Form) -> SiteResponse:
        plan = plan_of(form)
        if plan is None:
            return self.page(session, problem="One of the fields makes no sense.")
        self._faults.set(plan)
        return self.page(session, done="The fault is set.")

    def _state(self, session: Session, account_id: str, state: str) -> SiteResponse:
        if account_id not in ACCOUNTS or state not in STATES:
            return self.page(session, problem="There is no such account or state.")
        self._book.set_status(account_id, state)
        return self.page(session, done=f"The account is {state} now.")
