"""The pages on which a customer logs in: plain forms that work without JavaScript.

One interaction goes: the browser arrives at the authorization endpoint; the Hub is asked (``GET /auth``) and says either
whose interaction it is, or where to send the browser, or what to show here; the customer logs in; the consent is read and
decided on (``deciding``); the browser is sent to the TPP.

Invariants. Every form carries the session's CSRF token. An interaction belongs to the session that began it, is decided on
by the customer who logged in for it, and is ended once. Whatever goes wrong after it began ends it at the Hub too
(``doFail``), so that the TPP hears of it.

Field names, stable: ``username``, ``password``; then ``account`` (repeated) and ``decision`` = ``approve`` or ``decline``.
Hidden fields (``csrf``, ``interaction``) are to be sent back as they came. A wrong password shows the form again with
status 401; the third one in an interaction ends it with ``access_denied`` (``user_failed_to_authenticate``).
"""

import hmac
import logging
from collections.abc import Awaitable, Callable
from typing import Final, final

from hub.model.clock import Clock, Dice
from hub.sandbox.bank.bench import Bench
from hub.sandbox.bank.book import Book
from hub.sandbox.bank.deciding import Deciding
from hub.sandbox.bank.hub import Hub, HubTrouble, Interaction, Redirect, Unredirectable
from hub.sandbox.bank.own_consents import OwnConsents
from hub.sandbox.bank.pii import PiiReader
from hub.sandbox.bank.rendering import (
    Form,
    Renderer,
    field,
    form_of,
    see_other,
    sent_to,
    stylesheet,
)
from hub.sandbox.bank.sessions import TRIES, Logins, Session, Sessions
from hub.sandbox.site import Faults, SiteRequest, SiteResponse

LOG: Final = logging.getLogger("hub.sandbox.bank")
Action = Callable[[Session, Form], Awaitable[SiteResponse]]


@final
class Pages:
    """Answer the customer's browser; a ``SiteHandler``."""

    __slots__ = ("_base", "_bench", "_deciding", "_hub", "_logins", "_own", "_sessions", "_show")

    def __init__(
        self,
        *,
        base: str,
        book: Book,
        hub: Hub,
        clock: Clock,
        dice: Dice,
        pii: PiiReader,
        faults: Faults,
    ) -> None:
        """Take the path of the authorization endpoint, and what the pages work with."""
        self._base = base.rstrip("/")
        self._hub = hub
        self._show = Renderer(self._base)
        self._sessions = Sessions(clock, dice)
        self._logins = Logins(clock)
        self._deciding = Deciding(book=book, hub=hub, clock=clock, show=self._show, pii=pii)
        self._bench = Bench(book=book, faults=faults, show=self._show)
        self._own = OwnConsents(book=book, hub=hub, clock=clock, show=self._show)

    async def __call__(self, request: SiteRequest) -> SiteResponse:
        """Answer one request of a browser."""
        match request.method, request.path.removeprefix(self._base):
            case "GET", "" | "/":
                return await self._arrive(request)
            case "GET", "/style.css":
                return stylesheet()
            case "POST", "/login":
                return await self._posted(request, self._log_in)
            case "POST", "/consent":
                return await self._posted(request, self._decide)
            case "GET", "/consents":
                return await self._see_own(request)
            case "POST", "/consents":
                return await self._posted(request, self._change_own)
            case "GET", "/bench":
                return self._bench.page(self._session(request))
            case "POST", "/bench":
                return await self._posted(request, self._bench.change)
            case "POST", "/logout":
                return await self._posted(request, self._log_out)
            case _:
                return self._show.error(404, "Not found", "There is no such page here.")

    async def _arrive(self, request: SiteRequest) -> SiteResponse:
        try:
            begun = await self._hub.begin(request.query)
        except HubTrouble as trouble:
            LOG.warning("the Hub did not answer as documented: %s", trouble)
            return self._show.error(502, "Please try again", "We could not reach the service.")
        if isinstance(begun, Redirect):
            return sent_to(begun)
        if isinstance(begun, Unredirectable):
            sentence = "The provider that sent you here made a request we cannot follow."
            return self._show.error(400, "This link does not work", sentence, begun.error)
        session = self._session(request)
        session.add(begun)
        return self._login_form(session, begun)

    def _session(self, request: SiteRequest) -> Session:
        return self._sessions.find(request.header("cookie")) or self._sessions.start()

    def _login_form(
        self, session: Session, interaction: Interaction | None, problem: str = ""
    ) -> SiteResponse:
        status = 401 if problem else 200
        return self._show.page(
            "login.html", status, session, interaction=interaction, problem=problem
        )

    async def _posted(self, request: SiteRequest, action: Action) -> SiteResponse:
        form = form_of(request)
        session = self._sessions.find(request.header("cookie"))
        if session is None or not hmac.compare_digest(
            session.csrf.encode(), field(form, "csrf").encode()
        ):
            sentence = "This form is too old, or not ours. Please start again where you came from."
            return self._show.error(403, "Please start again", sentence)
        return await action(session, form)

    def _gone(self) -> SiteResponse:
        sentence = (
            "This was already decided, or took too long. Please start again where you came from."
        )
        return self._show.error(400, "Please start again", sentence)

    async def _log_in(self, session: Session, form: Form) -> SiteResponse:
        if "interaction" not in form:
            return await self._log_in_only(session, form)
        interaction = session.interactions.get(field(form, "interaction"))
        if interaction is None:
            return self._gone()
        if field(form, "decision") == "decline":
            return await self._not_authenticated(session, interaction)
        username = field(form, "username")
        customer = self._logins.check(username, field(form, "password"))
        if customer is not None:
            self._sessions.log_in(session, customer)
            return await self._deciding.page(session, interaction, customer)
        if self._logins.locked(username):
            return await self._deciding.fail(
                session, interaction, "access_denied", "user_account_blocked", reject=False
            )
        session.tries[interaction.id] = session.tries.get(interaction.id, 0) + 1
        if session.tries[interaction.id] >= TRIES:
            return await self._not_authenticated(session, interaction)
        return self._login_form(session, interaction, "Username or password is not right.")

    async def _log_in_only(self, session: Session, form: Form) -> SiteResponse:
        """Log in to see one's own consents: no interaction is concerned."""
        username = field(form, "username")
        customer = self._logins.check(username, field(form, "password"))
        if customer is not None:
            self._sessions.log_in(session, customer)
            return await self._own.page(session, customer)
        problem = "Username or password is not right."
        if self._logins.locked(username):
            problem = "Too many attempts. Please try again in a quarter of an hour."
        return self._login_form(session, None, problem)

    async def _see_own(self, request: SiteRequest) -> SiteResponse:
        session = self._session(request)
        if session.customer is None:
            return self._login_form(session, None)
        return await self._own.page(session, session.customer)

    async def _change_own(self, session: Session, form: Form) -> SiteResponse:
        if session.customer is None:
            return self._login_form(session, None)
        return await self._own.change(session, session.customer, form)

    async def _log_out(self, session: Session, _form: Form) -> SiteResponse:
        self._sessions.end(session)
        return see_other(f"{self._base}/consents")

    async def _not_authenticated(self, session: Session, interaction: Interaction) -> SiteResponse:
        return await self._deciding.fail(
            session, interaction, "access_denied", "user_failed_to_authenticate", reject=False
        )

    async def _decide(self, session: Session, form: Form) -> SiteResponse:
        interaction = session.interactions.get(field(form, "interaction"))
        customer = session.deciders.get(field(form, "interaction"))
        if interaction is None or customer is None:
            return self._gone()
        return await self._deciding.decide(session, interaction, customer, form)
