"""``POST /tpp-registration``: a TPP introduces itself by its certificate alone, and the Hub asks the framework.

The answer is 204 without a body; everything about the client is the framework's word. Both documented paths are served.
The body is empty or ``{}``.

Sources: hub-apis.md 4; trust-framework.md 7; decisions.md section 1, last row; errors.md 1.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, final

import orjson

from hub.model.caller import Peer
from hub.model.clock import Clock, Dice
from hub.model.event import Event, Kind, Verdict
from hub.model.fault import Fault, caller_fault, hub_fault
from hub.model.http import Handler, Request, Response, json_response
from hub.model.records import Registration
from hub.model.terms import Face
from hub.state.keeper import Keeper, Take
from hub.trust.fetch import Absent
from hub.trust.mirror import ACTIVE, TPP_ROLES, Client
from hub.trust.refresh import Problem, described, is_id
from hub.trust.registration import register

PATHS: Final = ("/tpp-registration", "/open-finance/onboarding/v2.1/tpp-registration")
ROUTE: Final = "tpp-registration"
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_RATE: Final = 0.2
_BURST: Final = 10
_BODY: Final = 1024

Look = Callable[[str, str], Awaitable[Client | Absent | Problem]]


@final
class Enrolment:
    """Answer registrations."""

    def __init__(
        self,
        *,
        keeper: Keeper,
        clock: Clock,
        dice: Dice,
        auto_activate: bool,
        look: Look,
        vet: Callable[[Peer], str],
        installed: Callable[[str], Awaitable[None]],
    ) -> None:
        """Take what it needs.

        Args:
            keeper: For the registration and its event.
            clock: Wall time.
            dice: For ids.
            auto_activate: Activate all three levels at once (sandbox).
            look: Fetches one client from the framework and installs it.
            vet: Names the check that keeps a peer out, once the framework was asked; empty for none.
            installed: Reads a registration into memory, so that the client's next request finds it.
        """
        self._keeper = keeper
        self._clock = clock
        self._dice = dice
        self._auto_activate = auto_activate
        self._look = look
        self._vet = vet
        self._installed = installed

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """Return the handlers by method and path."""
        return {("POST", path): self.answer for path in PATHS}

    async def answer(self, request: Request) -> Response:
        """Register the client whose certificate this is; 204, or the standard's error.

        Faults: 401 empty without a certificate; 400 ``GenericError`` for a body; 403 ``GenericError`` when the
        framework does not know the organisation or client, or they are not active or have no TPP role; 429 empty;
        500 ``GenericRecoverableError`` when the framework cannot be asked.

        Cancellation: the registration may or may not have been written; it is never half done.
        """
        interaction = _interaction(request) or self._dice.uuid()
        client = await self._vouched(request)
        if isinstance(client, Client):
            event = self._event(request, interaction, client)
            done = await register(
                self._keeper,
                self._clock,
                self._dice,
                client,
                activate=self._auto_activate,
                events=[event],
            )
            if isinstance(done, Registration):
                await self._installed(client.client_id)
                return Response(status=204, headers=_headers(interaction), event=event)
            client = done
        return await self._refused(request, interaction, client)

    async def _vouched(self, request: Request) -> Client | Fault:
        """Return the client that the framework vouches for."""
        peer = request.peer
        if not peer.present:
            return caller_fault(
                401, "", "A certificate is required.", check="trust.certificate_missing"
            )
        if (fault := _check_body(request)) is not None:
            return fault
        if not (is_id(peer.client_id) and is_id(peer.organisation_id)):
            return _unfit("trust.certificate_unknown_organisation", "subject holds no UUIDs")
        claim = Take(bucket=f"registration/{peer.client_id}", rate=_RATE, burst=_BURST)
        granted = await self._keeper.claim([claim])
        if isinstance(granted, Fault):
            return granted
        if not granted[0].granted:
            return caller_fault(429, "", "Too many registrations.", check="registration.rate")
        return await self._looked_up(peer)

    async def _looked_up(self, peer: Peer) -> Client | Fault:
        found = await self._look(peer.organisation_id, peer.client_id)
        if isinstance(found, Absent):
            return _unfit("trust.software_statement_inactive", "unknown to the framework")
        if not isinstance(found, Client):
            return hub_fault(
                500,
                "GenericRecoverableError",
                "The Trust Framework cannot be asked now; try again later.",
                check="trust.unreachable",
                private=described(found),
            )
        if check := self._vet(peer):
            return _unfit(check, "the organisation or certificate is unfit")
        if found.status != ACTIVE:
            return _unfit("trust.client_inactive", f"status {found.status!r}")
        if not TPP_ROLES & set(found.roles):
            return _unfit("trust.role_missing", "no TPP role in force")
        return found

    async def _refused(self, request: Request, interaction: str, fault: Fault) -> Response:
        event = self._event(request, interaction, None, fault)
        kept = await self._keeper.commit([], [event])
        headers = _headers(interaction)
        if isinstance(kept, Fault):
            return Response(status=503, headers=(*headers, (b"retry-after", b"1")), event=event)
        if fault.retry_after or fault.status == 429:
            headers = (*headers, (b"retry-after", b"%d" % (fault.retry_after or 5)))
        if not fault.code:
            return Response(status=fault.status, headers=headers, event=event)
        body = orjson.dumps({"Errors": [{"Code": fault.code, "Message": fault.public}]})
        return json_response(fault.status, body, *headers, event=event)

    def _event(
        self, request: Request, interaction: str, client: Client | None, fault: Fault | None = None
    ) -> Event:
        peer = request.peer
        return Event(
            kind=Kind.REGISTRATION,
            time_ms=self._clock.now_ms(),
            interaction_id=interaction,
            face=Face.TPP,
            client_id=client.client_id if client else peer.client_id[:64],
            organisation_id=client.organisation_id if client else peer.organisation_id[:64],
            x5t_s256=peer.x5t_s256,
            route=ROUTE,
            verdict=Verdict.REFUSED if fault else Verdict.ALLOWED,
            check=fault.check if fault else "",
            code=fault.code if fault else "",
            status=fault.status if fault else 204,
            subject=client.client_id if client else "",
            change="registered" if client else "",
            octets_in=len(request.body),
        )


def _check_body(request: Request) -> Fault | None:
    body = request.body.strip()
    if len(body) > _BODY:
        return _bad_body()
    try:
        return None if not body or orjson.loads(body) == {} else _bad_body()
    except orjson.JSONDecodeError:
        return _bad_body()


def _bad_body() -> Fault:
    return caller_fault(
        400,
        "Body.InvalidFormat",
        "Expected no body, or an empty JSON object.",
        check="registration.body",
    )


def _unfit(check: str, private: str) -> Fault:
    return caller_fault(
        403,
        "GenericError",
        "The Trust Framework does not list this client as active with a TPP role.",
        check=check,
        private=private,
    )


def _interaction(request: Request) -> str:
    value = (request.header(b"x-fapi-interaction-id") or b"").decode("latin-1")
    return value if _UUID.fullmatch(value) else ""


def _headers(interaction: str) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"x-fapi-interaction-id", interaction.encode()),)
