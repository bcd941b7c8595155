"""The resource journey: verify, enforce, enrich, forward, normalise, record; everything below ``/open-finance/``.

Theory. A request travels one way. Each stage takes frozen values and returns a value or a Fault; the first Fault ends the
journey and is rendered like any answer. Whatever happened, one audit event is made durable before the answer leaves: if it
cannot be, the answer is that the Hub cannot serve, and what the bank said is not shown.

The journey of a read waits for: its token, grant and consent (from the cache, mostly without waiting), the bank, and the
keeper's word on the event.

Source: architecture 2.7 and 4; decisions.md section 4.
"""

from collections.abc import Awaitable, Sequence
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import orjson
import trio

from hub.config import Settings
from hub.contract import Contract
from hub.contract.validators import is_uuid
from hub.gateway.bodies import Bodies
from hub.gateway.consents import Consents
from hub.gateway.enforce import enforce
from hub.gateway.enrich import ask, bank_call, blanked
from hub.gateway.errors import (
    WITH_BODY,
    at_resources,
    bank_error,
    bare,
    error_body,
    error_headers,
    too_deep,
    unrecorded,
)
from hub.gateway.files import Files, forgo
from hub.gateway.headers import customer_fault
from hub.gateway.journey import Journey
from hub.gateway.media import JSON, JWT, answer_media, signed
from hub.gateway.payee import Directory, Marks, discover, payee_answer, payee_question
from hub.gateway.payment_ends import Late, Paid, Replayed
from hub.gateway.payments import Payments
from hub.gateway.reports import Reports
from hub.gateway.sealed import Current, sealed_fault
from hub.gateway.shadow import Shadow
from hub.gateway.throttle import Throttle
from hub.gateway.usage import shared
from hub.gateway.values import Access, Asked, Call, Reply
from hub.gateway.verify import Lookup, Verifier
from hub.model.clock import Clock, Dice
from hub.model.event import Event
from hub.model.failpoint import Failpoint, Point, no_failpoint
from hub.model.fault import Fault, bank_fault, caller_fault, hub_fault
from hub.model.http import Admission, Headers, Request, Response
from hub.observe import Observer
from hub.protocol.jose import DPOP_ALGS, GENERAL_ALGS, PrivateKey
from hub.state.allowance import Consumption
from hub.state.keeper import Conflict, Keeper
from hub.state.secrets import Secrets
from hub.trust.view import TrustView
from hub.upstream.bank import Bank, BankAnswer

_UNROUTED: Final = Admission(limit=65536)
_ATTEMPTS: Final = 5
_PAYEE: Final = "payee"
_ORDER: Final = "payment.make"
_STATES: Final = frozenset({"enforce.status", "enforce.suspended"})
"""Refusals that say what became of a consent, perhaps by the very payment that is ordered again."""
_REPORT: Final = "report"
"""Its answer is of any type; only its refusals are ours."""
Ended = Reply | Replayed | Late | Paid | Fault
_OWN: Final = frozenset({"payment.make", "payment.read", "file", "report"})
"""Handlers that speak with the bank themselves."""


class Gateway:
    """Answer TPPs' requests for resources; implements ``App``."""

    def __init__(
        self,
        *,
        settings: Settings,
        keeper: Keeper,
        cache: Lookup,
        trust: TrustView,
        bank: Bank,
        contract: Contract,
        signing_keys: Sequence[PrivateKey],
        clock: Clock,
        dice: Dice,
        observer: Observer,
        failpoint: Failpoint = no_failpoint,
        directory: Directory | None = None,
        reports: Reports | None = None,
        sealing: Current | None = None,
    ) -> None:
        """Compose the stages.

        Args:
            settings: Of this node.
            keeper: The store.
            cache: Lookups of tokens, grants and consents; the keeper itself will do.
            trust: The Trust Framework as seen from here.
            bank: Ozone Connect.
            contract: Compiled tables and schemas.
            signing_keys: Of the tenant, the newest first; answers are signed with the first.
            clock: Wall time.
            dice: For interaction ids.
            observer: Counts what is not an answer.
            failpoint: For tests.
            reports: Answers the report API; None: it is not served.
            directory: Tells other banks' endpoints by their code in an IBAN; None: discovery finds none.
            sealing: Tells whether an encryption key of the bank is current; None: the bank finds out.
        """
        base = settings.tenant.resource_base
        self._settings = settings
        self._resource_base = base
        self._provider_id = settings.tenant.provider_id
        self._strip = settings.switches.strip_detail
        self._marks = Marks(settings.switches.payee_yes, settings.switches.payee_partial)
        self._keeper = keeper
        self._bank = bank
        self._contract = contract
        self._bodied = frozenset(r.id for r in contract.routes if contract.takes_body(r.id))
        self._keys = signing_keys
        self._clock = clock
        self._dice = dice
        self._failpoint = failpoint
        self._directory = directory
        self._reports = reports
        self._sealing = sealing
        secrets = Secrets(keeper=keeper, clock=clock, dice=dice)
        self._payments = Payments(
            keeper=keeper,
            bank=bank,
            contract=contract,
            clock=clock,
            dice=dice,
            provider_id=settings.tenant.provider_id,
            resource_base=base,
            time_zone=settings.tenant.time_zone,
            secrets=secrets,
            anchored=settings.switches.month_periods == "anchored",
            exact_days=settings.switches.exact_payment_days,
            dedupes=settings.bank.dedupes_by_key,
            failpoint=failpoint,
        )
        self._files = Files(keeper=keeper, bank=bank, provider_id=settings.tenant.provider_id)
        self._throttle = Throttle(
            keeper=keeper, limits=settings.limits, time_zone=settings.tenant.time_zone
        )
        nonces = settings.switches.dpop_nonce
        self._verifier = Verifier(
            keeper=keeper,
            cache=cache,
            trust=trust,
            resource_base=base,
            algs=GENERAL_ALGS if settings.tenant.profile == "general" else DPOP_ALGS,
            secrets=secrets if nonces else None,
        )
        self._bodies = Bodies(contract=contract, trust=trust, issuer=settings.tenant.issuer)
        self._consents = Consents(
            keeper=keeper,
            contract=contract,
            trust=trust,
            dice=dice,
            resource_base=base,
            consumption=Consumption(
                keeper,
                ZoneInfo(settings.tenant.time_zone),
                anchored=settings.switches.month_periods == "anchored",
            ),
        )
        self.shadow = Shadow(
            contract=contract, observer=observer, mode=settings.switches.response_validation
        )

    def admit(self, request: Request) -> Admission | Response:
        """Say how a body is received: by the route's own bounds, small where there is no route."""
        found = self._contract.match(request.method, request.path)
        if found is None:
            return _UNROUTED
        route = found[0]
        return Admission(limit=route.body_limit, cancel_with_caller=route.cancellable)

    async def respond(self, request: Request) -> Response:
        """Answer one request.

        Cancellation: what was sent to the bank is abandoned; nothing is half done.
        """
        journey = Journey(request, self._clock.now_ms())
        for again in range(_ATTEMPTS):
            if again:
                journey = Journey(request, self._clock.now_ms(), again=journey.access is not None)
            call = self._arrive(request, journey)
            outcome = await self._travel(call, journey) if isinstance(call, Call) else call
            response = await self._record(request, journey, outcome)
            if response is not None:
                return response
        text = "The record is being changed by others."
        busy = caller_fault(400, "GenericRecoverableError", text, check="record.conflict")
        return await self._record(request, journey, busy) or bare(503)

    def _arrive(self, request: Request, journey: Journey) -> Call | Fault:
        """Name the interaction and find the route."""
        sent = journey.fields.get(b"x-fapi-interaction-id")
        text = sent.decode("latin-1") if sent is not None else ""
        lawful = is_uuid(text)
        journey.interaction_id = text if lawful else self._dice.uuid()
        found = self._contract.match(request.method, request.path)
        if found is None:
            journey.allow = self._contract.methods(request.path)
            return caller_fault(405 if journey.allow else 404, "", "", check="route.unknown")
        return journey.begin(found[0], found[1], sent_id=lawful)

    async def _travel(self, call: Call, journey: Journey) -> Ended:
        """Verify, throttle, enforce, judge what was sent, and serve."""
        route, throttle = call.route, self._throttle
        access = await self._verifier.verify(call, again=journey.again)
        if not isinstance(access, Access):
            return access
        journey.access = access
        raw = route.handler == _REPORT
        journey.media = JWT if raw else answer_media(route, call.combined(b"accept"))
        fault = None if call.sent_id else self._unnamed(call)
        if fault is None and throttle.limits_calls and not journey.again:
            fault = await throttle.judge(call, access)
        if fault is None:
            fault = enforce(call, access)
            if fault is not None and route.handler == _ORDER and fault.check in _STATES:
                return await self._repeated(call, access, journey) or fault
        if fault is None:
            fault = self._unservable(call, journey)
        if fault is None and throttle.limits_pages and not journey.again:
            fault = await throttle.judge_page(call, access)
        if fault is not None:
            return fault
        body: Any = None
        if route.id in self._bodied:
            body = await self._bodies.read(call, access)
            if isinstance(body, Fault):
                return body
        if route.target == "hub" or route.handler in _OWN:
            return await self._own(call, access, body)
        return await self._forward(call, access, body, journey)

    async def _repeated(self, call: Call, access: Access, journey: Journey) -> Ended | None:
        """Answer an order under a consent that allows none now as it was answered before; None if this one is new.

        The payment that uses a consent up makes it Consumed: whoever lost its answer asks again after that.
        """
        if self._unservable(call, journey) is not None:
            return None
        body = await self._bodies.read(call, access)
        return (
            None if isinstance(body, Fault) else await self._payments.repeated(call, access, body)
        )

    def _unnamed(self, call: Call) -> Fault | None:
        """Say whether a call is refused for the interaction id that it does not lawfully bring."""
        strict = self._settings.switches.strict_interaction_id
        if not strict and b"x-fapi-interaction-id" not in call.fields:
            return None
        what = "x-fapi-interaction-id: expected a UUID"
        return caller_fault(400, "Resource.InvalidFormat", what, check="request.interaction_id")

    def _unservable(self, call: Call, journey: Journey) -> Fault | None:
        """Say what is wrong with a permitted call's head: ``Accept``, query, the headers its route wants."""
        if journey.media is None:
            return caller_fault(406, "", "", check="request.accept")
        fault = self._contract.check_query(call.route, call.request.query)
        fault = fault or customer_fault(call.fields)
        if fault is not None:
            return fault
        for name in call.route.forward:
            if not call.fields.get(name.encode()):
                text = f"{name}: is required"
                return caller_fault(400, "Resource.InvalidFormat", text, check="request.header")
        return None

    async def _own(self, call: Call, access: Access, body: Any) -> Ended:
        """Serve a route whose target is the Hub itself."""
        match call.route.handler:
            case "consents":
                return await self._consents.listed(call, access)
            case "consent":
                return await self._consents.read(call, access)
            case "consent.patch":
                return await self._consents.patch(call, access, body)
            case "payment.make":
                return await self._order(call, access, body)
            case "payment.read":
                return await self._payments.view.read(call, access)
            case "payment.find":
                return await self._payments.view.find(call, access)
            case "file":
                attached = await self._consents.attached(call, access)
                if isinstance(attached, Fault):
                    return attached
                return await self._files.upload(call, attached)
            case "report":
                return await self._files.report(call, access)
            case "discovery":
                return await discover(call, body, self._directory, self._resource_base)
            case "reports" if self._reports is not None:
                return await self._reports.read(call, access)
            case other:
                text = "The Hub cannot serve this."
                return hub_fault(500, "GenericError", text, check="route.unserved", private=other)

    async def _order(self, call: Call, access: Access, body: Any) -> Ended:
        """Make a payment; where the bank withdrew the key that it is sealed for, only one that was made before is answered."""
        fault = await sealed_fault(body, self._sealing)
        if fault is not None:
            return await self._payments.repeated(call, access, body) or fault
        return await self._payments.make(call, access, body)

    async def _forward(
        self, call: Call, access: Access, body: Any, journey: Journey
    ) -> Reply | Fault:
        route = call.route
        if route.consent_parameter:
            attached = await self._consents.attached(call, access)
            if isinstance(attached, Fault):
                return attached
            access = attached
        asked = ask(call, access, self._resource_base, self._contract.query_names(route.id))
        if not isinstance(asked, Asked):
            return asked
        if route.consent_parameter and access.consent is not None:
            related = await self._consents.related(access.consent)
            context = msgspec.structs.replace(asked.context, related=related)
            asked = msgspec.structs.replace(asked, context=context)
        self._failpoint(Point.BEFORE_FORWARD)
        sent = b"" if body is None else self._question(call, body)
        question = bank_call(call, access, asked, self._provider_id, sent)
        started = trio.current_time()
        answer = await self._bank.exchange(question)
        journey.bank_us = round((trio.current_time() - started) * 1e6)
        self._failpoint(Point.AFTER_FORWARD_BEFORE_RECORD)
        if not isinstance(answer, BankAnswer):
            return answer
        if not 200 <= answer.status < 300:
            return bank_error(answer, payment=False, finds=route.finds)
        outcome = self._normalise(call, asked, body, answer)
        if not isinstance(outcome, Reply):
            return outcome
        noted = shared(call, access)
        return msgspec.structs.replace(outcome, courtesy=noted) if noted else outcome

    def _question(self, call: Call, body: Any) -> bytes:
        if call.route.handler == _PAYEE:
            return payee_question(body)
        return orjson.dumps(self._contract.request(call.route.id, body))

    def _normalise(self, call: Call, asked: Asked, body: Any, answer: BankAnswer) -> Reply | Fault:
        text = "The bank's answer cannot be read."
        try:
            given = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            return bank_fault(500, "GenericError", text, check="bank.not_json")
        if asked.blank:
            given = blanked(given)
        refused = self.shadow.look(call.route.id, given, len(answer.body))
        if refused is not None:
            return refused
        if call.route.handler == _PAYEE:
            return payee_answer(call, body, given, self._resource_base, self._marks)
        mapper = self._contract.mapper(call.route.mapper)
        mapped = mapper(given, asked.context, strip=self._strip)
        if isinstance(mapped, dict):
            return Reply(status=call.route.success, value=mapped)
        return mapped

    def _record(
        self, request: Request, journey: Journey, outcome: Ended
    ) -> Awaitable[Response | None]:
        """Render the outcome, commit its changes and its event, and only then hand the answer over.

        Returns:
            None on a conflict: somebody changed what the outcome was decided on.
        """
        if isinstance(outcome, Reply):
            return self._record_reply(request, journey, outcome)
        if isinstance(outcome, Paid):
            return self._record_payment(request, journey, outcome)
        if isinstance(outcome, Late):
            return self._record_late(request, journey, outcome)
        return self._record_word(request, journey, outcome)

    async def _record_word(
        self, request: Request, journey: Journey, outcome: Replayed | Fault
    ) -> Response | None:
        """Record what changes nothing: a refusal, a failure, an answer that was given before."""
        response = self._render(journey, outcome)
        event = journey.event(request, outcome, response)
        committed = await self._keeper.commit((), (event,))
        return self._recorded(journey, response, event, committed)

    async def _record_reply(
        self, request: Request, journey: Journey, reply: Reply
    ) -> Response | None:
        try:
            response = self._render_reply(journey, reply)
        except TypeError:
            return await self._record_word(request, journey, too_deep())
        event = journey.event(request, reply, response)
        if reply.stream is not None:
            event = msgspec.structs.replace(event, octets_out=reply.size)
        changes, events = reply.changes, (*reply.events, event)
        try:
            committed = await self._keeper.commit((*changes, *reply.courtesy), events)
            if reply.courtesy and isinstance(committed, Conflict):
                committed = await self._keeper.commit(changes, events)
        except BaseException:  # the caller left meanwhile
            forgo(reply.stream)
            raise
        return self._recorded(journey, response, event, committed)

    def _recorded(
        self, journey: Journey, response: Response, event: Event, committed: object
    ) -> Response | None:
        """Hand an answer over whose event is durable; ``committed`` is the keeper's word on that."""
        if not isinstance(committed, tuple):
            forgo(response.stream)
            id_header = journey.id_header()
            return unrecorded(committed, id_header) if isinstance(committed, Fault) else None
        self._failpoint(Point.AFTER_RECORD_BEFORE_REPLY)
        return msgspec.structs.replace(response, event=event)

    async def _record_payment(
        self, request: Request, journey: Journey, paid: Paid
    ) -> Response | None:
        """Render a payment's outcome, and have it written with its answer and its event."""
        journey.bank_us = paid.bank_us
        shown = paid.shown
        try:
            response = self._render(journey, shown)
        except TypeError:
            shown = too_deep()
            response = self._render(journey, shown)
        event = journey.event(request, shown, response)
        instead = await self._payments.record(paid, response, event)
        if instead is not None:
            return await self._record(request, journey, instead)
        self._failpoint(Point.AFTER_RECORD_BEFORE_REPLY)
        return msgspec.structs.replace(response, event=event)

    async def _record_late(self, request: Request, journey: Journey, late: Late) -> Response | None:
        """Render the answer of an earlier order that nobody has heard yet, and keep it for whoever asks again."""
        response = self._render(journey, late.shown)
        event = journey.event(request, late.shown, response)
        instead = await self._payments.keep(late, response, event)
        if instead is not None:
            return await self._record(request, journey, instead)
        return msgspec.structs.replace(response, event=event)

    def _render(self, journey: Journey, outcome: Reply | Replayed | Fault) -> Response:
        if isinstance(outcome, Reply):
            return self._render_reply(journey, outcome)
        if isinstance(outcome, Replayed):
            stored = outcome.stored
            headers = (*stored.headers, journey.id_header())
            return Response(status=stored.status, headers=headers, body=stored.body)
        fault = at_resources(outcome)
        url = f"{self._settings.tenant.issuer}/errors/{fault.check}" if fault.check else ""
        headers = error_headers(fault, allow=journey.allow, url=url)
        if fault.status not in WITH_BODY:
            return bare(fault.status, (*headers, journey.id_header()))
        return self._with_body(journey, fault.status, error_body(fault, url), headers)

    def _render_reply(self, journey: Journey, reply: Reply) -> Response:
        if reply.media:
            kind = ((b"content-type", reply.media), (b"x-content-type-options", b"nosniff"))
            raw = bare(reply.status, (*kind, *reply.headers, journey.id_header()))
            return msgspec.structs.replace(raw, body=reply.octets, stream=reply.stream)
        if reply.value is None:
            return bare(reply.status, (*reply.headers, journey.id_header()))
        return self._with_body(journey, reply.status, reply.value, reply.headers)

    def _with_body(self, journey: Journey, status: int, value: Any, headers: Headers) -> Response:
        route = journey.route
        media = journey.media or answer_media(route, None) or JSON
        if media == JWT:
            body = signed(
                value,
                issuer=self._settings.tenant.issuer,
                audience=journey.client_id,
                alone=route is not None and route.one_audience,
                now=journey.now_ms // 1000,
                key=self._keys[0],
            )
        else:
            body = orjson.dumps(value)
        fixed = ((b"content-type", media), (b"cache-control", b"no-store"), journey.id_header())
        return Response(status=status, headers=(*fixed, *headers), body=body)
