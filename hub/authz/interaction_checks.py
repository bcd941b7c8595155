"""The hand-over to the bank: ``GET /auth``, then ``doConfirm`` or ``doFail``, once.

A fault with ``redirect`` goes to the TPP by the bank's relay (303); any other is an error page's business (400).

Source: Headless Heimdall (hub APIs 2.1); RFC 9126 section 4; RFC 9101 section 6.3; decisions 1.
"""

import msgspec

from hub.authz.facts import Facts, refuse
from hub.model.consent import Status, status_at
from hub.model.fault import Fault, hub_fault
from hub.protocol.oauth import show


def _redirected(fault: Fault) -> Fault:
    return msgspec.structs.replace(fault, redirect=True)


def query_readable(facts: Facts) -> Fault | None:
    """Expect a query in which client_id and request_uri do not occur twice."""
    if facts.form_fault is None:
        return None
    return refuse("invalid_request", "authorize.readable", f"query: {facts.form_fault.why}")


def client_known(facts: Facts) -> Fault | None:
    """Expect client_id to be an active client of this Hub; whether it is one must be known."""
    if isinstance(facts.judged, Fault):
        public = "client: cannot be looked up at the moment, try again"
        return hub_fault(400, "server_error", public, check=facts.judged.check)
    came = facts.form.get("client_id")
    if came and facts.caller.client_id == came:
        return None
    public = f"client_id: expected an active client, got {show(came)}"
    return refuse("invalid_client", "authorize.client", public)


def pushed_known(facts: Facts) -> Fault | None:
    """Expect request_uri to be one that this Hub gave: without PAR there is no authorization."""
    if facts.pushed is not None:
        return None
    came = facts.form.get("request_uri")
    if came is None:
        public = "request_uri: expected one from the PAR endpoint, got nothing"
        return refuse("invalid_request", "authorize.pushed", public)
    return refuse("invalid_request_uri", "authorize.pushed", "request_uri: is not known here")


def pushed_client(facts: Facts) -> Fault | None:
    """Expect the client that pushed the request."""
    if facts.pushed is not None and facts.pushed.client_id == facts.caller.client_id:
        return None
    public = "client_id: expected the client that pushed this request"
    return refuse("invalid_client", "authorize.pushed_client", public)


def pushed_usable(facts: Facts) -> Fault | None:
    """Expect a request that is neither expired nor finished."""
    pushed = facts.pushed
    if pushed is not None and not pushed.finished and facts.now < pushed.expires:
        return None
    public = "request_uri: is expired or was used"
    return _redirected(refuse("invalid_request_uri", "authorize.usable", public))


def consent_awaits(facts: Facts) -> Fault | None:
    """Expect the consent to await its authorization."""
    status = status_at(facts.consent, facts.now) if facts.consent is not None else None
    if status is Status.AWAITING:
        return None
    public = f"consent: expected AwaitingAuthorization, it is {status or 'unknown'}"
    return _redirected(refuse("access_denied", "authorize.consent", public))


def prompt_possible(facts: Facts) -> Fault | None:
    """Expect prompt not to be none: the bank always asks its customer."""
    asked = facts.pushed.parameters.get("prompt") if facts.pushed is not None else None
    if asked != "none":
        return None
    public = "prompt: expected a customer who can be asked, got 'none'"
    return _redirected(refuse("login_required", "authorize.prompt", public))


def interaction_usable(facts: Facts) -> Fault | None:
    """Expect an interaction that is known, unexpired and unfinished."""
    found, pushed = facts.interaction, facts.pushed
    if found is None or pushed is None:
        public = "interactionId: is not known here"
    elif found.finished or pushed.finished:
        public = "interactionId: was finished before"
    elif facts.now >= found.expires:
        public = "interactionId: is expired"
    else:
        return None
    return refuse("invalid_request", "finish.interaction", public)
