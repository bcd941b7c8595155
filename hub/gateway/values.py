"""What the stages of the gateway hand on: the call, the access it has, the answer it gets."""

from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from hub.contract import Context
from hub.model.caller import Caller
from hub.model.consent import Consent
from hub.model.event import Event
from hub.model.http import Headers, Request
from hub.model.records import AccessToken
from hub.model.route import Route
from hub.state.keeper import Change


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one request whose route is known.

    Attributes:
        request: As received.
        route: Its row.
        parameters: Of the path, decoded.
        now_ms: Wall time of arrival, milliseconds; every decision of this call is made at this moment.
        now: The same moment in whole seconds.
        interaction_id: As sent, or made.
        sent_id: The TPP sent an interaction id.
        fields: The first value of each header, looked up by name.
    """

    request: Request
    route: Route
    parameters: dict[str, str]
    now_ms: int
    now: int
    interaction_id: str
    sent_id: bool
    fields: dict[bytes, bytes]

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of a header given in lower case, or None."""
        return self.fields.get(name)

    def combined(self, name: bytes) -> bytes | None:
        """Return the list that a header is, on however many lines it came (RFC 9110 section 5.3), or None."""
        if len(self.fields) == len(self.request.headers):
            return self.fields.get(name)
        return b", ".join(self.request.header_values(name)) or None


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what verify found: who calls, with which token, for which consent (as last written, with its version)."""

    caller: Caller
    token: AccessToken
    consent: Consent | None = None
    version: int = 0

    @property
    def permissions(self) -> frozenset[str]:
        """Return the consent's permissions."""
        return permissions_of(self.consent) if self.consent is not None else frozenset()


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """Hold an answer before it is rendered.

    Attributes:
        status: Of success.
        value: The JSON value; None for no body.
        headers: Further headers.
        changes: To be committed with the event; nothing has happened before that.
        events: Further events, of what the changes mean.
        courtesy: Changes that are left out where their records were changed meanwhile.
        octets: The body as it is, of type ``media``, where it is no JSON of ours.
        media: Its content type.
        stream: The body as it comes, of ``size`` octets (0: not announced), instead of ``octets``.
    """

    status: int
    value: Any = None
    headers: Headers = ()
    changes: tuple[Change, ...] = ()
    events: tuple[Event, ...] = ()
    courtesy: tuple[Change, ...] = ()
    octets: bytes = b""
    media: bytes = b""
    stream: AsyncIterator[bytes] | None = None
    size: int = 0


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Hold a validated request for the bank: path, query, paging, and what the mapper needs.

    ``blank`` says that nothing of the bank's answer lies in the consent's window: the list is shown empty.
    """

    path: str
    query: str
    context: Context
    blank: bool = False


def permissions_of(consent: Consent) -> frozenset[str]:
    """Return the permissions that a consent's body lists; remembered by the record, which nobody changes."""
    kept = _PERMISSIONS.get(consent.id)
    if kept is None or kept[0] is not consent:
        if len(_PERMISSIONS) >= _KEPT_MOST:
            _PERMISSIONS.clear()
        data = consent.body.get("Data", {})
        listed = frozenset(str(p) for p in data.get("Permissions") or ())
        kept = _PERMISSIONS[consent.id] = (consent, listed)
    return kept[1]


_KEPT_MOST: Final = 8192
_PERMISSIONS: Final[dict[str, tuple[Consent, frozenset[str]]]] = {}
