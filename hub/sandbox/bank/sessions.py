"""Browser sessions and login attempts: bounded, short-lived, in memory.

Invariants. A session's id changes at login, so an id known before is worth nothing after. Each session has its own CSRF
token, which every form carries. A username (known or not) with five failures within fifteen minutes is locked for as long;
a locked username's right password is refused too.
"""

import base64
import hmac
from typing import Final, final

from hub.model.clock import Clock, Dice
from hub.sandbox.bank.book import customer_by_username
from hub.sandbox.bank.hub import Interaction
from hub.sandbox.bank.people import Customer

COOKIE: Final = "__Host-model-bank"
SESSION_S: Final = 1_800
LOCK_S: Final = 900
FAILURES: Final = 5
TRIES: Final = 3
_MOST_SESSIONS: Final = 2_000
_MOST_NAMES: Final = 2_000
_MOST_INTERACTIONS: Final = 20


@final
class Session:
    """One browser: who is logged in, and what it was asked to decide."""

    __slots__ = ("csrf", "customer", "deciders", "expires", "id", "interactions", "tries")

    def __init__(self, session_id: str, csrf: str, expires: int) -> None:
        """Begin with nobody logged in."""
        self.id = session_id
        self.csrf = csrf
        self.expires = expires
        self.customer: Customer | None = None
        self.interactions: dict[str, Interaction] = {}
        self.deciders: dict[str, Customer] = {}
        self.tries: dict[str, int] = {}

    def add(self, interaction: Interaction) -> None:
        """Remember an interaction; the oldest is forgotten where there are too many."""
        self.interactions[interaction.id] = interaction
        if len(self.interactions) > _MOST_INTERACTIONS:
            self.drop(next(iter(self.interactions)))

    def drop(self, interaction_id: str) -> None:
        """Forget an interaction that has ended."""
        self.interactions.pop(interaction_id, None)
        self.deciders.pop(interaction_id, None)
        self.tries.pop(interaction_id, None)


@final
class Sessions:
    """All sessions of the bank's pages."""

    __slots__ = ("_clock", "_dice", "_sessions")

    def __init__(self, clock: Clock, dice: Dice) -> None:
        """Begin with none."""
        self._clock = clock
        self._dice = dice
        self._sessions: dict[str, Session] = {}

    def find(self, cookie_header: str) -> Session | None:
        """Return the session that a ``Cookie`` header names, or None."""
        session = self._sessions.get(_cookie(cookie_header))
        if session is None or session.expires <= self._clock.now():
            return None
        return session

    def start(self) -> Session:
        """Begin a session; the oldest ends where there are too many."""
        session = Session(self._token(), self._token(), self._clock.now() + SESSION_S)
        self._sessions[session.id] = session
        if len(self._sessions) > _MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        return session

    def log_in(self, session: Session, customer: Customer) -> None:
        """Put a customer into a session, under a new id and a new CSRF token."""
        self._sessions.pop(session.id, None)
        session.id, session.csrf = self._token(), self._token()
        session.customer = customer
        session.expires = self._clock.now() + SESSION_S
        self._sessions[session.id] = session

    def end(self, session: Session) -> None:
        """End a session."""
        self._sessions.pop(session.id, None)

    def _token(self) -> str:
        return base64.urlsafe_b64encode(self._dice.token(32)).decode().rstrip("=")


def cookie_for(session: Session) -> str:
    """Return the ``Set-Cookie`` value of a session."""
    return f"{COOKIE}={session.id}; Path=/; Secure; HttpOnly; SameSite=Lax"


def _cookie(header: str) -> str:
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


@final
class Logins:
    """Check passwords, and count failures."""

    __slots__ = ("_clock", "_failures")

    def __init__(self, clock: Clock) -> None:
        """Begin with no failures."""
        self._clock = clock
        self._failures: dict[str, list[int]] = {}

    def locked(self, username: str) -> bool:
        """Tell whether a username is locked now."""
        return len(self._recent(username)) >= FAILURES

    def check(self, username: str, password: str) -> Customer | None:
        """Return the customer whose password it is, or None, which counts as a failure."""
        customer = customer_by_username(username)
        expected = customer.password if customer is not None else "-"
        right = hmac.compare_digest(expected.encode(), password.encode())
        if self.locked(username):
            return None
        if customer is not None and right:
            self._failures.pop(username, None)
            return customer
        self._count(username)
        return None

    def _recent(self, username: str) -> list[int]:
        since = self._clock.now() - LOCK_S
        return [at for at in self._failures.get(username[:64], []) if at > since]

    def _count(self, username: str) -> None:
        self._failures[username[:64]] = [*self._recent(username), self._clock.now()][-FAILURES:]
        if len(self._failures) > _MOST_NAMES:
            del self._failures[next(iter(self._failures))]
