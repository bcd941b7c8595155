"""The shell around every operation of the Consent Manager: decide, commit with one event, only then answer.

An operation is a function from a ``Call`` to a ``Done`` or a ``Fault``; it reads, but writes nothing. The shell commits
what it decided together with the request's event. If a record changed meanwhile, the operation is asked again.

Errors are ``{errorCode, errorMessage}`` (errors.md 4 and 8).
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import msgspec
import orjson
import trio

from hub.model.clock import Clock, Dice
from hub.model.event import Event, Kind, Verdict
from hub.model.fault import Fault, caller_fault, hub_fault
from hub.model.http import Handler, Request, Response, json_response
from hub.model.shape import deeper_than
from hub.model.terms import Face
from hub.state.keeper import Change, Conflict, Keeper

_TRIES: Final = 5
_DEEPEST: Final = 64
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_INTERACTION: Final = (b"x-fapi-interaction-id", b"o3-ozone-interaction-id")


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one request with what every operation needs of it."""

    request: Request
    parameters: Mapping[str, str]
    query: Mapping[str, str]
    now_ms: int
    interaction_id: str
    dice: Dice

    @property
    def now(self) -> int:
        """Return whole seconds since 1970."""
        return self.now_ms // 1000

    def json(self) -> Any | Fault:
        """Return the body.

        Faults: 400 ``Body.InvalidFormat``.
        """
        try:
            body = orjson.loads(self.request.body)
        except orjson.JSONDecodeError as error:
            return _no_json(f"expected JSON ({error.msg} at character {error.pos})")
        # What is kept of it is written again in each answer and event, and no writer of JSON goes down without end.
        if deeper_than(body, _DEEPEST):
            return _no_json(f"expected JSON that is nested at most {_DEEPEST} levels deep")
        return body


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what an operation decided; ``body`` None for an empty one, ``check`` of what was flagged though allowed."""

    status: int = 204
    body: Any = None
    changes: tuple[Change, ...] = ()
    events: tuple[Event, ...] = ()
    kind: Kind = Kind.CALL
    consent_id: str = ""
    subject: str = ""
    change: str = ""
    approved: str = ""
    check: str = ""


Operation = Callable[[Call], Awaitable[Done | Fault]]


class Shell:
    """Run operations."""

    def __init__(self, *, keeper: Keeper, clock: Clock, dice: Dice) -> None:
        """Take what it needs."""
        self.keeper = keeper
        self.clock = clock
        self.dice = dice

    def handler(self, route: str, template: str, operation: Operation) -> Handler:
        """Make the handler of an operation.

        Args:
            route: Its id in events.
            template: Its path.
            operation: Decides.
        """

        async def handle(request: Request) -> Response:
            return await self._run(request, route, template, operation)

        return handle

    async def _run(
        self, request: Request, route: str, template: str, operation: Operation
    ) -> Response:
        interaction_id = interaction_of(request) or self.dice.uuid()
        for _ in range(_TRIES):
            call = self._call(request, template, interaction_id)
            decided = call if isinstance(call, Fault) else await operation(call)
            event, body = _event_of(request, route, decided, self.clock.now_ms(), interaction_id)
            changes: tuple[Change, ...] = ()
            events: tuple[Event, ...] = (event,)
            if isinstance(decided, Done):
                changes, events = decided.changes, (event, *decided.events)
            committed = await self.keeper.commit(changes, events)
            if isinstance(committed, Fault):
                return failed(committed)
            if not isinstance(committed, Conflict):
                return _response(event, body)
        return failed(
            hub_fault(503, "GenericRecoverableError", "Try again.", check="lfi.contention")
        )

    def _call(self, request: Request, template: str, interaction_id: str) -> Call | Fault:
        query: dict[str, str] = {}
        for name, value in parse_qsl(request.query, keep_blank_values=True):
            if query.setdefault(name, value) != value:
                return caller_fault(
                    400,
                    "Resource.InvalidFormat",
                    f"{name[:64]}: stands twice in the query",
                    check="lfi.query",
                )
        return Call(
            request=request,
            parameters=parameters_of(template, request.path),
            query=query,
            now_ms=self.clock.now_ms(),
            interaction_id=interaction_id,
            dice=self.dice,
        )


def _no_json(why: str) -> Fault:
    return caller_fault(400, "Body.InvalidFormat", f"body: {why}", check="lfi.json")


def interaction_of(request: Request) -> str:
    """Return the caller's interaction id, or an empty string if it sent none that is a UUID."""
    for name in _INTERACTION:
        value = (request.header(name) or b"").decode("latin-1")
        if _UUID.match(value):
            return value
    return ""


def parameters_of(template: str, path: str) -> dict[str, str]:
    """Return the decoded values of the template's segments in a path that matches it."""
    pairs = zip(template.split("/"), path.split("/"), strict=False)
    return {part[1:-1]: unquote(value) for part, value in pairs if part.startswith("{")}


def _event_of(
    request: Request, route: str, decided: Done | Fault, now_ms: int, interaction_id: str
) -> tuple[Event, bytes]:
    body = b""
    if isinstance(decided, Fault):
        body = error_body(decided)
    elif decided.body is not None:
        body = orjson.dumps(decided.body)
    event = Event(
        kind=Kind.CALL,
        time_ms=now_ms,
        interaction_id=interaction_id,
        face=Face.LFI,
        client_id=request.peer.client_id,
        organisation_id=request.peer.organisation_id,
        x5t_s256=request.peer.x5t_s256,
        route=route,
        status=decided.status,
        octets_in=len(request.body),
        octets_out=len(body),
        hub_us=_since(request),
    )
    if isinstance(decided, Fault):
        return msgspec.structs.replace(event, **refused(decided)), body
    changed = {
        "kind": decided.kind,
        "consent_id": decided.consent_id,
        "subject": decided.subject,
        "change": decided.change,
        "approved": decided.approved,
        "check": decided.check,
    }
    return msgspec.structs.replace(event, **changed), body


def refused(fault: Fault) -> dict[str, Any]:
    """Return the members of an event that a fault decides."""
    verdict = Verdict.REFUSED if fault.status < 500 else Verdict.FAILED
    return {"verdict": verdict, "check": fault.check, "code": fault.code, "status": fault.status}


def _since(request: Request) -> int:
    if not request.received_ns:
        return 0
    return max(0, int(trio.current_time() * 1e6) - request.received_ns // 1000)


def _response(event: Event, body: bytes) -> Response:
    if not body:
        return Response(status=event.status, event=event)
    return json_response(event.status, body, event=event)


def error_body(fault: Fault) -> bytes:
    """Return a fault in the shape that the bank reads."""
    return orjson.dumps({"errorCode": fault.code, "errorMessage": fault.public})


def failed(fault: Fault) -> Response:
    """Answer a fault that could not be made an event; the store's own code is OAuth's, here it is the standard's."""
    fault = msgspec.structs.replace(fault, code="GenericRecoverableError")
    extra = ((b"retry-after", str(fault.retry_after or 1).encode()),)
    return json_response(fault.status, error_body(fault), *extra)
