"""What is known of one request while it travels: for its answer, and for its one event."""

from typing import Any, Final, final

import trio

from hub.gateway.errors import recorded_code
from hub.gateway.usage import page_of
from hub.gateway.values import Access, Call, Reply
from hub.model.event import Event, Kind, Verdict
from hub.model.fault import Fault, Source
from hub.model.http import Request, Response

_ID_MOST: Final = 128


@final
class Journey:
    """Gather what is known of one request, for its event and its answer; written by the pipeline only."""

    __slots__ = (
        "_call",
        "_request",
        "access",
        "again",
        "allow",
        "bank_us",
        "fields",
        "interaction_id",
        "media",
        "now_ms",
    )

    def __init__(self, request: Request, now_ms: int, *, again: bool = False) -> None:
        """Begin with nothing known but when it came, and whether it was verified, and counted, before."""
        self._request = request
        self._call: Call | None = None
        self.now_ms = now_ms
        self.again = again
        self.fields = dict(reversed(request.headers))
        """The first value of each header."""
        self.interaction_id = ""
        self.access: Access | None = None
        self.media: bytes | None = None
        self.allow: tuple[str, ...] = ()
        self.bank_us = 0

    def begin(self, route: Any, parameters: dict[str, str], *, sent_id: bool) -> Call:
        """Note the route and return the Call."""
        self._call = Call(
            request=self._request,
            route=route,
            parameters=parameters,
            now_ms=self.now_ms,
            now=self.now_ms // 1000,
            interaction_id=self.interaction_id,
            sent_id=sent_id,
            fields=self.fields,
        )
        return self._call

    @property
    def route(self) -> Any:
        """Return the row of its route; None before it is known."""
        return self._call.route if self._call is not None else None

    @property
    def client_id(self) -> str:
        """Return whose request it is; empty before that is known."""
        return self.access.caller.client_id if self.access is not None else ""

    def id_header(self) -> tuple[bytes, bytes]:
        """Return the header that names the interaction."""
        return b"x-fapi-interaction-id", self.interaction_id.encode()

    def event(self, request: Request, outcome: object, response: Response) -> Event:
        """Return the one event of this request."""
        # A Reply is told first: of what is none, asking costs more.
        fault = outcome if not isinstance(outcome, Reply) and isinstance(outcome, Fault) else None
        access, call = self.access, self._call
        client = organisation = consent = route = change = ""
        if call is not None:
            route = call.route.id
            change = page_of(call) if fault is None else ""
        if access is not None:
            client, organisation = access.caller.client_id, access.caller.organisation_id
            consent = access.token.consent_id
            if not consent and call is not None:
                consent = _named(call.parameters.get(call.route.consent_parameter, ""))
        spent = 0
        if request.received_ns:
            spent = round(trio.current_time() * 1e6) - request.received_ns // 1000 - self.bank_us
        return Event(
            kind=Kind.CALL,
            time_ms=self.now_ms,
            interaction_id=self.interaction_id,
            face=request.face,
            client_id=client,
            organisation_id=organisation,
            x5t_s256=request.peer.x5t_s256,
            consent_id=consent,
            route=route,
            verdict=_verdict(fault, response.status),
            check=fault.check if fault is not None else "",
            code=recorded_code(fault) if fault is not None else "",
            status=response.status,
            octets_in=len(request.body),
            octets_out=len(response.body),
            hub_us=max(0, spent),
            bank_us=self.bank_us,
            change=change,
        )


def _named(consent_id: str) -> str:
    """Return the id of a consent as a path names it; of what can be none, nothing: it may say anything, at any length."""
    fit = len(consent_id) <= _ID_MOST and consent_id.isascii() and consent_id.isprintable()
    return consent_id if fit else ""


def _verdict(fault: Fault | None, status: int) -> Verdict:
    if fault is None:
        return Verdict.ALLOWED if status < 400 else Verdict.REFUSED
    return (
        Verdict.REFUSED if fault.source is Source.CALLER or fault.status < 500 else Verdict.FAILED
    )
