"""The directory's three sites: public documents, the API behind mTLS, and the PKI over plain http."""

import base64
import binascii
import hashlib
import hmac
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, final
from urllib.parse import parse_qs, unquote

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from hub.model.clock import Clock, Dice
from hub.sandbox.directory.certificates import (
    RequestRefused,
    certificate_document,
    issue_for,
    key_type_of,
    pem_in,
)
from hub.sandbox.directory.documents import (
    DETAIL_TYPES,
    SCOPES,
    Bases,
    key_set,
    organisation_document,
    participants_document,
    server_document,
    statement_document,
)
from hub.sandbox.directory.register import ACTIVE, REVOKED, Application, Key, Organisation, Register
from hub.sandbox.directory.registrar import Registrar
from hub.sandbox.pki import KeyType, Pki, x5t_s256
from hub.sandbox.server import SiteHandler, SiteRequest, SiteResponse

_REASONS: Final = {reason.value.lower(): reason.value for reason in x509.ReasonFlags}
TOKEN_SECONDS: Final = 600
SCOPE: Final = "directory:software"
_TOKENS: Final = 10_000
_JSON: Final = ("content-type", "application/json")
_JWKS: Final = ("content-type", "application/jwk-set+json")
_NO_STORE: Final = ("cache-control", "no-store")
_SET_PATH: Final = re.compile(
    r"/(?P<org>[0-9a-f-]{36})(?:/(?P<app>[0-9a-f-]{36}))?(?P<revoked>/revoked)?/(?P<set>application|transport)\.jwks"
)
_PEM_PATH: Final = re.compile(r"/(?P<org>[0-9a-f-]{36})/(?P<kid>[A-Za-z0-9_-]{20,64})\.pem")
_API_PATH: Final = re.compile(
    r"/organisations(?:/(?P<org>[^/]+)(?:/(?P<list>softwarestatements|authorisationservers)"
    r"(?:/(?P<item>[^/]+)(?P<assertion>/assertion)?)?)?)?"
)

_CERTIFICATES_PATH: Final = re.compile(
    r"/organisations/(?P<org>[^/]+)(?:/softwarestatements/(?P<app>[^/]+))?"
    r"/certificates(?:/(?P<item>[^/]+))?"
)


class _Revoke(msgspec.Struct, frozen=True):
    RevokeReason: str = "unspecified"


_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern="^[^\\x00-\\x1f\\x7f]+$")]
_Https = Annotated[str, msgspec.Meta(max_length=2000, pattern="^https://[^ ]+$")]
_Role = Literal["BDSP", "BSIP", "ISP", "IDSP", "LFI"]


class _NewOrganisation(msgspec.Struct, frozen=True):
    OrganisationName: _Name
    Size: Literal["TPP", "LFI", "TSP"] = "TPP"
    Roles: tuple[_Role, ...] = ()


class _NewStatement(msgspec.Struct, frozen=True):
    ClientName: Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
    RedirectUri: Annotated[tuple[_Https, ...], msgspec.Meta(min_length=1, max_length=100)]
    ApiWebhookUri: tuple[_Https, ...] = ()
    Roles: tuple[_Role, ...] = ()


class _Token(msgspec.Struct, frozen=True):
    client_id: str
    x5t_s256: str
    expires: int


@final
class Directory(Registrar):
    """Answer for the Trust Framework at its three addresses. Made by ``Directory.open``."""

    def __init__(
        self, folder: Path, register: Register, *, pki: Pki, clock: Clock, dice: Dice, bases: Bases
    ) -> None:
        """Use ``open``."""
        super().__init__(folder, register, pki=pki, clock=clock, dice=dice, bases=bases)
        self._tokens: dict[str, _Token] = {}
        self._listed: tuple[Register | None, bytes] = (None, b"")

    @property
    def public_handler(self) -> SiteHandler:
        """Return what answers at the public address: participants, key store, certificates."""
        return self._public

    @property
    def api_handler(self) -> SiteHandler:
        """Return what answers at the API's address: token, organisations, software statements."""
        return self._api

    @property
    def pki_handler(self) -> SiteHandler:
        """Return what answers for the PKI: CRL, OCSP, CA certificates."""
        return self._pki

    async def _public(self, request: SiteRequest) -> SiteResponse:
        if request.method not in {"GET", "HEAD"}:
            return _error(405, "method_not_allowed")
        if request.path == "/participants":
            body = participants_document(self.register.organisations.values())
            return _cached(request, _encode(body), 900, _JSON)
        if request.path == "/directory.jwks":
            return self._sets(request, (self.signing,), "")
        if found := _SET_PATH.fullmatch(request.path):
            return self._key_set(request, found)
        if found := _PEM_PATH.fullmatch(request.path):
            return self._certificate(found["org"], found["kid"])
        return _error(404, "not_found")

    def _key_set(self, request: SiteRequest, found: re.Match[str]) -> SiteResponse:
        organisation = self.register.organisations.get(found["org"])
        if organisation is None:
            return _error(404, "not_found")
        keys = organisation.keys
        if found["app"]:
            application = _by_statement(organisation, found["app"])
            if application is None:
                return _error(404, "not_found")
            keys = application.keys
        return self._sets(
            request,
            keys,
            organisation.id,
            transport=found["set"] == "transport",
            revoked=found["revoked"] is not None,
        )

    def _sets(
        self,
        request: SiteRequest,
        keys: tuple[Key, ...],
        organisation_id: str,
        *,
        transport: bool = False,
        revoked: bool = False,
    ) -> SiteResponse:
        document = key_set(
            keys,
            transport=transport,
            revoked=revoked,
            organisation_id=organisation_id,
            bases=self.bases,
            now=self.clock.now(),
        )
        return _cached(request, _encode(document), 300, _JWKS)

    def _certificate(self, organisation_id: str, kid: str) -> SiteResponse:
        try:
            organisation, _, key = self.register.key(kid)
        except KeyError:
            return _error(404, "not_found")
        if organisation.id != organisation_id or not key.pem:
            return _error(404, "not_found")
        return SiteResponse(
            headers=(("content-type", "application/x-pem-file"),), body=key.pem.encode()
        )

    async def _api(self, request: SiteRequest) -> SiteResponse:
        if request.path == "/token":
            return self._token(request)
        refused = self._refused(request)
        if refused is not None:
            return refused
        if found := _CERTIFICATES_PATH.fullmatch(request.path):
            return self._certificates(request, found)
        if request.method == "POST" and (found := _API_PATH.fullmatch(request.path)):
            return self._create(request, found)
        if request.method != "GET":
            return _error(405, "method_not_allowed")
        if request.path == "/references/apifamilies":
            return _answer(_families())
        if found := _API_PATH.fullmatch(request.path):
            return self._read(request, found)
        return _error(404, "not_found")

    def _token(self, request: SiteRequest) -> SiteResponse:
        """Issue a token to the application whose transport certificate this is (RFC 8705 section 2.1)."""
        if request.method != "POST":
            return _error(405, "method_not_allowed")
        form = parse_qs(request.body.decode("latin-1"), max_num_fields=20)
        application = self._authenticated(request.certificate)
        claimed = form.get("client_id", [""])[0]
        if application is None or (claimed and claimed != application.client_id):
            return _error(401, "invalid_client")
        if form.get("grant_type") != ["client_credentials"]:
            return _error(400, "unsupported_grant_type")
        if SCOPE not in form.get("scope", [""])[0].split():
            return _error(400, "invalid_scope")
        value = base64.urlsafe_b64encode(self.dice.token(32)).rstrip(b"=").decode()
        now = self.clock.now()
        self._forget(now)
        self._tokens[_digest(value)] = _Token(
            application.client_id, _thumbprint(request.certificate), now + TOKEN_SECONDS
        )
        return _answer(
            {
                "access_token": value,
                "token_type": "Bearer",
                "expires_in": TOKEN_SECONDS,
                "scope": SCOPE,
            }
        )

    def _authenticated(self, der: bytes) -> Application | None:
        """Return the active application whose published, unrevoked transport certificate this is."""
        if not der:
            return None
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if len(names) != 1 or self.pki.revoked(certificate.serial_number):
            return None
        try:
            application = self.register.application(str(names[0].value))
        except KeyError:
            return None
        organisation = self.register.organisation(application.organisation_id)
        kid = x5t_s256(certificate)
        published = any(key.kid == kid and key.status != REVOKED for key in application.keys)
        if not published or {organisation.status, application.status} != {ACTIVE}:
            return None
        return application

    def _refused(self, request: SiteRequest) -> SiteResponse | None:
        scheme, _, value = request.header("authorization").partition(" ")
        token = self._tokens.get(_digest(value)) if scheme.lower() == "bearer" else None
        if token is None or token.expires <= self.clock.now():
            return _error(401, "invalid_token")
        if not hmac.compare_digest(token.x5t_s256, _thumbprint(request.certificate)):
            return _error(401, "invalid_token")
        if self._authenticated(request.certificate) is None:
            return _error(401, "invalid_client")
        return None

    def _forget(self, now: int) -> None:
        """Drop expired tokens, and the oldest where there are too many."""
        self._tokens = {k: v for k, v in self._tokens.items() if v.expires > now}
        while len(self._tokens) >= _TOKENS:
            self._tokens.pop(next(iter(self._tokens)))

    def _read(self, request: SiteRequest, found: re.Match[str]) -> SiteResponse:
        register = self.register
        if not found["org"]:
            return _cached(request, self._everybody(), 60, _JSON)
        organisation = register.organisations.get(found["org"])
        if organisation is None:
            return _error(404, "not_found")
        if not found["list"]:
            return _answer(organisation_document(organisation))
        if found["list"] == "authorisationservers":
            return _answer(
                [server_document(organisation, s) for s in organisation.servers.values()]
            )
        return self._statements(organisation, found["item"], assertion=bool(found["assertion"]))

    def _everybody(self) -> bytes:
        """Return the list of all organisations, made once per state of the register."""
        if self._listed[0] is not self.register:
            every = [organisation_document(o) for o in self.register.organisations.values()]
            self._listed = (self.register, _encode(every))
        return self._listed[1]

    def _statements(
        self, organisation: Organisation, item: str | None, *, assertion: bool
    ) -> SiteResponse:
        bases = self.bases
        if not item:
            every = organisation.applications.values()
            return _answer([statement_document(organisation, a, bases) for a in every])
        application = _by_statement(organisation, item)
        if application is None:
            return _error(404, "not_found")
        if not assertion:
            return _answer(statement_document(organisation, application, bases))
        signed = self.assertion(organisation, application)
        return SiteResponse(
            headers=(("content-type", "application/jwt"), _NO_STORE), body=signed.encode()
        )

    def _create(self, request: SiteRequest, found: re.Match[str]) -> SiteResponse:
        """Create an organisation (by the operator's applications), or a software statement (of the caller's organisation)."""
        caller = self._authenticated(request.certificate)
        if caller is None:
            return _error(403, "access_denied")
        own = self.register.organisation(caller.organisation_id)
        try:
            if not found["org"] and own.size == "TSP":
                return _answer(self._new_organisation(request.body), 201)
            if (
                found["org"] == own.id
                and found["list"] == "softwarestatements"
                and not found["item"]
            ):
                return _answer(self._new_statement(own, request.body), 201)
        except msgspec.DecodeError as error:
            return _error(400, str(error))
        return _error(403, "access_denied")

    def _new_organisation(self, body: bytes) -> dict[str, Any]:
        asked = msgspec.json.decode(body, type=_NewOrganisation)
        organisation = self.add_organisation(
            organisation_id=self.dice.uuid(),
            name=asked.OrganisationName,
            size=asked.Size,
            roles=asked.Roles,
        )
        return organisation_document(organisation)

    def _new_statement(self, organisation: Organisation, body: bytes) -> dict[str, Any]:
        asked = msgspec.json.decode(body, type=_NewStatement)
        application = self.add_application(
            organisation_id=organisation.id,
            client_id=self.dice.uuid(),
            name=asked.ClientName,
            roles=[role for role in asked.Roles if role in organisation.roles],
            redirect_uris=asked.RedirectUri,
            webhook_uris=asked.ApiWebhookUri,
        )
        organisation = self.register.organisation(organisation.id)
        return statement_document(organisation, application, self.bases)

    def _certificates(self, request: SiteRequest, found: re.Match[str]) -> SiteResponse:
        """List certificates, issue one (POST, type), or revoke one (PUT, kid): of the caller's organisation only."""
        organisation = self.register.organisations.get(found["org"])
        caller = self._authenticated(request.certificate)
        if organisation is None or caller is None or caller.organisation_id != organisation.id:
            return _error(403, "access_denied")
        application = _by_statement(organisation, found["app"]) if found["app"] else None
        if found["app"] and application is None:
            return _error(404, "not_found")
        keys = application.keys if application else organisation.keys
        if request.method == "GET" and not found["item"]:
            base = self.bases.public
            return _answer([certificate_document(organisation, application, k, base) for k in keys])
        if request.method == "POST" and found["item"]:
            return self._issue(request, found["item"], organisation, application)
        if request.method == "PUT" and found["item"]:
            return self._revoke(request, found["item"], organisation, application)
        return _error(405, "method_not_allowed")

    def _issue(
        self,
        request: SiteRequest,
        type_name: str,
        organisation: Organisation,
        application: Application | None,
    ) -> SiteResponse:
        key_type = key_type_of(type_name)
        if key_type is None or key_type is KeyType.SERVER_ENCKEY:
            return _error(400, "unknown certificate type")
        pem = pem_in(request.body, request.header("content-type"))
        key = issue_for(self.pki, pem, key_type, organisation, application, self.clock.now())
        if isinstance(key, RequestRefused):
            return _error(400, key.why)
        self.publish(organisation.id, application.client_id if application else "", key)
        document = certificate_document(organisation, application, key, self.bases.public)
        return _answer(document | {"Certificate": key.pem}, 201)

    def _revoke(
        self,
        request: SiteRequest,
        kid: str,
        organisation: Organisation,
        application: Application | None,
    ) -> SiteResponse:
        keys = application.keys if application else organisation.keys
        if kid not in {key.kid for key in keys}:
            return _error(404, "not_found")
        try:
            reason = msgspec.json.decode(request.body or b"{}", type=_Revoke).RevokeReason
            key = self.revoke(kid, _REASONS.get(reason.lower(), "unspecified"))
        except msgspec.DecodeError:
            return _error(400, "expected a JSON object with RevokeReason")
        return _answer(certificate_document(organisation, application, key, self.bases.public))

    async def _pki(self, request: SiteRequest) -> SiteResponse:
        pki = self.pki
        if request.path == "/issuer.crl" and request.method == "GET":
            return _cached(request, pki.crl(), 60, ("content-type", "application/pkix-crl"))
        if request.path.startswith("/ocsp"):
            return self._ocsp(request)
        authorities = {"/issuer-ca.pem": pki.issuing, "/root-ca.pem": pki.root}
        if request.method == "GET" and request.path in authorities:
            body = authorities[request.path].public_bytes(serialization.Encoding.PEM)
            return SiteResponse(headers=(("content-type", "application/x-pem-file"),), body=body)
        return _error(404, "not_found")

    def _ocsp(self, request: SiteRequest) -> SiteResponse:
        """Answer OCSP by POST, or by GET with the request in the path (RFC 6960 appendix A.1)."""
        asked = request.body
        if request.method == "GET":
            try:
                asked = base64.b64decode(unquote(request.path.removeprefix("/ocsp/")))
            except (binascii.Error, ValueError):
                asked = b""
        return SiteResponse(
            headers=(("content-type", "application/ocsp-response"), _NO_STORE),
            body=self.pki.ocsp(asked),
        )


def _by_statement(organisation: Organisation, item: str) -> Application | None:
    """Return an application by its software statement id or its client id."""
    for application in organisation.applications.values():
        if item in {application.software_statement_id, application.client_id}:
            return application
    return None


def _families() -> list[dict[str, Any]]:
    return [
        {
            "ApiFamilyType": family,
            "Version": "2.1",
            "Role": role,
            "Scopes": list(SCOPES[role]),
            "AuthorizationDetailsType": DETAIL_TYPES[role],
        }
        for family, role in (
            ("account-information", "BDSP"),
            ("product", "BDSP"),
            ("atm", "BDSP"),
            ("payment", "BSIP"),
            ("confirmation", "BSIP"),
            ("insurance", "ISP"),
        )
    ]


def _encode(document: object) -> bytes:
    return msgspec.json.encode(document)


def _answer(document: object, status: int = 200) -> SiteResponse:
    return SiteResponse(status=status, headers=(_JSON, _NO_STORE), body=_encode(document))


def _error(status: int, error: str) -> SiteResponse:
    return _answer({"error": error}, status)


def _cached(
    request: SiteRequest, body: bytes, max_age: int, content_type: tuple[str, str]
) -> SiteResponse:
    """Answer with a validator, or 304 where the caller has this version already (RFC 9110 section 13.1.2)."""
    etag = '"' + hashlib.sha256(body).hexdigest()[:32] + '"'
    headers = (("etag", etag), ("cache-control", f"max-age={max_age}"))
    known = [tag.strip().removeprefix("W/") for tag in request.header("if-none-match").split(",")]
    if etag in known:
        return SiteResponse(status=304, headers=headers)
    return SiteResponse(headers=(content_type, *headers), body=body)


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def _thumbprint(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest()
