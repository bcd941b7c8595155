"""Consents and tokens for the load, made through the Hub's real endpoints: PAR, Headless Heimdall, token.

The customer's part is done with the bank's own certificate, as a bank's server would: begin the interaction, patch the
consent with the customer's choice, confirm. ``prepared`` keeps what it made in ``bench.json`` of the sandbox's folder.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit
from zoneinfo import ZoneInfo

import httpx
import msgspec
import trio
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from bench.moment import clock, follow, seconds
from hub.model.period import local_date
from hub.node.wall import SystemDice
from hub.sandbox.bank.hub import Hub, Interaction, Redirect
from hub.sandbox.browser import Browser
from hub.sandbox.manifest import Manifest, read_manifest
from hub.sandbox.tls import client_context
from hub.sandbox.tpp import (
    Ask,
    Callback,
    Discovery,
    Identity,
    Pushed,
    Tokens,
    Tpp,
    Wire,
    read_callback,
    serve_callbacks,
)
from hub.sandbox.tpp.consent import DATA_SHARING_SCOPE, data_sharing_consent, timestamp
from hub.sandbox.tpp.identity import Files
from hub.sandbox.tpp.oauth import authorization_url, request_token

ACCOUNT = "acc-1001"
SIZED = tuple(f"{size}octets" for size in (1_000, 10_000, 100_000, 1_000_000, 10_000_000))
CUSTOMER = "bench-customer"
LIFE_S = 86_400 * 30
_ZONE = ZoneInfo("Asia/Dubai")
"""The sandbox tenant's: a schedule may not start yesterday, and there tomorrow begins at 20:00 UTC."""


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one consent that was given, and what may be used of it."""

    consent_id: str
    access_token: str
    refresh_token: str
    expires: int
    bound: bool = False


class ProofKey:
    """Sign DPoP proofs (RFC 9449), a fresh one for each request."""

    def __init__(self, key: ec.EllipticCurvePrivateKey | None = None) -> None:
        """Take a P-256 key, or make one."""
        self._key = key or ec.generate_private_key(ec.SECP256R1())
        numbers = self._key.public_key().public_numbers()
        jwk = {
            "crv": "P-256",
            "kty": "EC",
            "x": _b64(numbers.x.to_bytes(32)),
            "y": _b64(numbers.y.to_bytes(32)),
        }
        self.thumbprint = _b64(hashlib.sha256(_json(jwk)).digest())
        """Of the public key (RFC 7638)."""
        self._head = _b64(_json({"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk}))

    @classmethod
    def kept(cls, path: Path) -> "ProofKey":
        """Return the key of a file, which is made if it is not there."""
        if path.is_file():
            key = serialization.load_pem_private_key(path.read_bytes(), None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            return cls(key)
        made = cls()
        path.touch(mode=0o600)
        kind, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        path.write_bytes(made._key.private_bytes(kind, form, serialization.NoEncryption()))
        return made

    def proof(self, method: str, url: str, access_token: str = "") -> str:
        """Return a proof for one request."""
        claims: dict[str, Any] = {
            "jti": SystemDice().uuid(),
            "htm": method,
            "htu": url,
            "iat": seconds(),
        }
        if access_token:
            claims["ath"] = _b64(hashlib.sha256(access_token.encode()).digest())
        text = f"{self._head}.{_b64(_json(claims))}"
        r, s = decode_dss_signature(self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_b64(r.to_bytes(32) + s.to_bytes(32))}"


class MessageKey:
    """Sign a TPP's messages (PS256)."""

    def __init__(self, path: Path, kid: str) -> None:
        """Read the key."""
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        self._key = key
        self._head = _b64(_json({"alg": "PS256", "kid": kid, "typ": "JWT"}))
        self._padding = padding.PSS(padding.MGF1(hashes.SHA256()), 32)

    def sign(self, claims: dict[str, Any]) -> str:
        """Return a compact JWS."""
        text = f"{self._head}.{_b64(_json(claims))}"
        return f"{text}.{_b64(self._key.sign(text.encode(), self._padding, hashes.SHA256()))}"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class Preparing:
    """Make consents of one TPP at one Hub."""

    def __init__(
        self, folder: Path, manifest: Manifest, tpp: Tpp, hub: Hub, discovery: Discovery
    ) -> None:
        """Use ``prepare``."""
        self._folder = folder
        self._manifest = manifest
        self._tpp = tpp
        self._hub = hub
        self._discovery = discovery

    async def accounts(self, count: int, proof: ProofKey | None = None) -> list[Granted]:
        """Make data-sharing consents."""
        expires = seconds() + LIFE_S
        return [
            await self._one(
                data_sharing_consent(consent_id=SystemDice().uuid(), expires=expires),
                DATA_SHARING_SCOPE,
                proof,
            )
            for _ in range(count)
        ]

    async def payments(self, count: int, sealed: str, proof: ProofKey | None) -> list[Granted]:
        """Make consents for any number of small payments to one creditor."""
        return [
            await self._one(any_payments(sealed), "payments openid", proof) for _ in range(count)
        ]

    async def _one(self, detail: dict[str, Any], scope: str, proof: ProofKey | None) -> Granted:
        identity = self._tpp.identity
        consent_id = detail["consent"]["ConsentId"]
        pushed = await self._tpp.push(self._discovery, detail, scope)
        assert isinstance(pushed, Pushed), pushed
        if self._manifest.customers:
            code = await self._by_page(pushed, scope)
        else:
            code = await self._by_bank(pushed, scope, consent_id)
        ask = request_token(identity, self._discovery, code=code, pushed=pushed)
        if proof is not None:
            headers = {"dpop": proof.proof("POST", self._discovery.token)}
            ask = msgspec.structs.replace(ask, headers={**ask.headers, **headers})
        answer = await self._tpp.wire.carry(ask)
        assert answer.status == 200, answer
        tokens = msgspec.json.decode(answer.body, type=Tokens)
        return Granted(
            consent_id=consent_id,
            access_token=tokens.access_token,
            refresh_token=tokens.refresh_token,
            expires=seconds() + tokens.expires_in,
            bound=proof is not None,
        )

    async def _by_bank(self, pushed: Pushed, scope: str, consent_id: str) -> str:
        """Decide as a bank's server would, with its certificate: the bank has no pages here."""
        query = {
            "client_id": self._tpp.identity.client_id,
            "request_uri": pushed.request_uri,
            "response_type": "code",
            "scope": scope,
        }
        begun = await self._hub.begin(urlencode(query))
        assert isinstance(begun, Interaction), begun
        account = account_at(self._manifest)
        change = {
            "psuIdentifiers": {"userId": CUSTOMER},
            "accountIds": [account] if "payments" in scope else [account, *SIZED],
            "authorizationChannel": "Web",
            "consentBody.Data.Status": "Authorized",
        }
        await self._hub.patch(consent_id, change)
        back = await self._hub.confirm(begun.id)
        assert isinstance(back, Redirect), back
        return parse_qs(urlsplit(back.location).query)["code"][0]

    async def _by_page(self, pushed: Pushed, scope: str) -> str:
        """Decide as a customer would, on the model bank's pages."""
        identity, person = self._tpp.identity, self._manifest.customers[0]
        section = self._manifest.tpps[0]
        ca = self._folder / self._manifest.ca_bundle
        files = Files(
            ca=ca,
            certificate=self._folder / section.server_cert,
            key=self._folder / section.server_key,
        )
        url = authorization_url(identity, self._discovery, pushed.request_uri, scope)
        async with (
            serve_callbacks(identity.redirect_uri, files) as callbacks,
            Browser(client_context(ca)) as browser,
        ):
            form = (await browser.visit(url)).form_with("username", "password")
            assert form is not None
            login = {"username": person.username, "password": person.password}
            form = (await browser.submit(form, login)).form_with("account", "decision")
            assert form is not None
            chosen: dict[str, str | list[str]] = {"decision": "approve"}
            chosen["account"] = [account_at(self._manifest)]
            await browser.submit(form, chosen)
            with trio.fail_after(10):
                came = read_callback(await callbacks.receive(), pushed, self._discovery)
        assert isinstance(came, Callback), came
        return came.code


def account_at(manifest: Manifest) -> str:
    """Return the account to ask for: a customer's at the model bank, else the one that nginx has."""
    return manifest.customers[0].accounts[0] if manifest.customers else ACCOUNT


def any_payments(sealed: str) -> dict[str, Any]:
    """Return the authorization detail of a long-lived consent for payments of any amount up to a bound."""
    expires = seconds() + LIFE_S
    amount = {"Amount": "1000.00", "Currency": "AED"}
    schedule = {
        "MultiPayment": {
            "MaximumCumulativeNumberOfPayments": 1_000_000,
            "MaximumCumulativeValueOfPayments": {"Amount": "90000000.00", "Currency": "AED"},
            "PeriodicSchedule": {
                "Type": "VariableOnDemand",
                "PeriodType": "Month",
                "PeriodStartDate": local_date(seconds(), _ZONE).isoformat(),
                "Controls": {"MaximumIndividualAmount": amount},
            },
        }
    }
    consent = {
        "ConsentId": SystemDice().uuid(),
        "PersonalIdentifiableInformation": sealed,
        "ControlParameters": {"ConsentSchedule": schedule},
        "IsSingleAuthorization": True,
        "ExpirationDateTime": timestamp(expires),
        "PaymentPurposeCode": "ACM",
    }
    return {"type": "urn:openfinanceuae:service-initiation-consent:v2.1", "consent": consent}


class Purse(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what the load works with."""

    reads: list[Granted]
    bound_reads: list[Granted] = []
    payments: list[Granted] = []
    sealed: str = ""


async def prepare(
    folder: Path, *, reads: int, bound_reads: int, payments: int, proof: ProofKey
) -> Purse:
    """Make consents at the running sandbox of a folder, with the first TPP."""
    manifest = read_manifest(folder)
    follow(folder)
    identity = Identity.read(manifest.tpps[0], folder, manifest.ca_bundle, clock(), SystemDice())
    bank = bank_context(folder, manifest)
    async with (
        Wire.of(identity) as wire,
        httpx.AsyncClient(verify=bank, timeout=15.0, trust_env=False) as http,
    ):
        tpp = Tpp(identity, wire)
        discovery = await tpp.discover(manifest.hub.issuer)
        assert isinstance(discovery, Discovery), discovery
        hub = Hub(http, manifest.hub.heimdall_base, manifest.hub.consent_manager_base)
        preparing = Preparing(folder, manifest, tpp, hub, discovery)
        sealed = await _sealed(tpp, manifest) if payments else ""
        return Purse(
            reads=await preparing.accounts(reads),
            bound_reads=await preparing.accounts(bound_reads, proof),
            payments=await preparing.payments(payments, sealed, proof),
            sealed=sealed,
        )


async def _sealed(tpp: Tpp, manifest: Manifest) -> str:
    """Seal a creditor for the bank, whose key set is the directory's."""
    from hub.sandbox.parties import BANK  # noqa: PLC0415 - payments only
    from hub.sandbox.tpp.payment import creditor, seal  # noqa: PLC0415

    url = f"{manifest.directory.keystore_base}/{BANK.organisation_id}/application.jwks"
    answer = await tpp.wire.carry(Ask(method="GET", url=url))
    who = creditor("AE460261001234567891234", "Shop LLC")
    sealed = seal(tpp.identity, msgspec.json.decode(answer.body), {"Creditor": [who]})
    assert isinstance(sealed, str), sealed
    return sealed


def bank_context(folder: Path, manifest: Manifest) -> Any:
    """Return a context with the bank's certificate."""
    bank = manifest.bank
    return client_context(
        folder / manifest.ca_bundle, folder / bank.transport_cert, folder / bank.transport_key
    )
