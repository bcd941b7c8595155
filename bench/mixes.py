"""What the load sends: one mix per operation, each request with its own interaction id, proof, key or assertion."""

import base64
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlencode, urlsplit

import msgspec

from bench.client import Request
from bench.consents import Granted, MessageKey, ProofKey, Purse, account_at
from bench.moment import seconds
from hub.sandbox.manifest import Manifest

MIXES: Final = (
    "balances",
    "balances-dpop",
    "accounts",
    "payments",
    "par",
    "token",
    "discovery",
    "transactions",
)
ACCOUNT_INFORMATION: Final = "/open-finance/account-information/v2.1"
PAYMENTS: Final = "/open-finance/payment/v2.1/payments"


def needs(mix: str) -> dict[str, int]:
    """Return how many consents of which kind a mix works with."""
    reads = 4 if mix in {"balances", "accounts", "transactions"} else 0
    return {
        "reads": reads,
        "bound_reads": 4 if mix == "balances-dpop" else 0,
        "payments": 64 if mix == "payments" else 0,
    }


class Mix:
    """Make requests of one kind; ``request`` is called once for each."""

    def __init__(
        self,
        name: str,
        manifest: Manifest,
        folder: Path,
        purse: Purse,
        proof: ProofKey,
        size: int = 0,
    ) -> None:
        """Prepare what all requests share."""
        self._manifest = manifest
        self._purse = purse
        self._proof = proof
        self._base = manifest.hub.resource_base
        self._issuer = manifest.hub.issuer
        self._account = account_at(manifest)
        self._tpp = manifest.tpps[0]
        self._message = MessageKey(folder / self._tpp.signing_key, self._tpp.signing_kid)
        self._count = 0
        self._size = size
        self._ready: deque[Request] = deque()
        makers: dict[str, Callable[[], Request]] = {
            "balances": self._balances,
            "balances-dpop": self._balances_dpop,
            "accounts": self._accounts,
            "transactions": self._transactions,
            "payments": self._payment,
            "par": self._par,
            "token": self._token,
            "discovery": self._discovery,
        }
        self._make = makers[name]

    def request(self) -> Request:
        """Return the next request, made before if there is one."""
        return self._ready.popleft() if self._ready else self._make()

    def stock(self, count: int) -> None:
        """Make requests in advance, so that signing does not weigh on the run."""
        self._ready.extend(self._make() for _ in range(count))

    def _turn(self, of: list[Granted]) -> Granted:
        self._count += 1
        return of[self._count % len(of)]

    def _get(self, path: str, granted: Granted, *, proved: bool = False) -> Request:
        scheme = "DPoP" if granted.bound else "Bearer"
        fixed = [
            ("authorization", f"{scheme} {granted.access_token}"),
            ("accept", "application/json"),
            ("x-fapi-customer-ip-address", "192.0.2.17"),
            ("x-customer-user-agent", "Mozilla/5.0 (bench)"),
            ("user-agent", "bench"),
        ]
        own = [("x-fapi-interaction-id", uuid())]
        if proved:
            own.append(
                (
                    "dpop",
                    self._proof.proof(
                        "GET", self._base + path.partition("?")[0], granted.access_token
                    ),
                )
            )
        return Request("GET", self._base, path, fixed, own)

    def _balances(self) -> Request:
        return self._get(
            f"{ACCOUNT_INFORMATION}/accounts/{self._account}/balances",
            self._turn(self._purse.reads),
        )

    def _balances_dpop(self) -> Request:
        path = f"{ACCOUNT_INFORMATION}/accounts/{self._account}/balances"
        return self._get(path, self._turn(self._purse.bound_reads), proved=True)

    def _accounts(self) -> Request:
        return self._get(f"{ACCOUNT_INFORMATION}/accounts", self._turn(self._purse.reads))

    def _transactions(self) -> Request:
        path = f"{ACCOUNT_INFORMATION}/accounts/{self._size}octets/transactions"
        return self._get(path, self._turn(self._purse.reads))

    def _payment(self) -> Request:
        granted = self._turn(self._purse.payments)
        now = seconds()
        data = {
            "ConsentId": granted.consent_id,
            "Instruction": {"Amount": {"Amount": "1.00", "Currency": "AED"}},
            "PaymentPurposeCode": "ACM",
            "PersonalIdentifiableInformation": self._purse.sealed,
            "OpenFinanceBilling": {"Type": "PushP2P"},
        }
        claims = {
            "iss": self._tpp.client_id,
            "aud": self._issuer,
            "iat": now,
            "nbf": now,
            "exp": now + 120,
            "message": {"Data": data},
        }
        scheme = "DPoP" if granted.bound else "Bearer"
        fixed = [
            ("authorization", f"{scheme} {granted.access_token}"),
            ("accept", "application/jwt"),
            ("content-type", "application/jwt"),
            ("x-fapi-customer-ip-address", "192.0.2.17"),
            ("user-agent", "bench"),
        ]
        own = [("x-fapi-interaction-id", uuid()), ("x-idempotency-key", uuid())]
        if granted.bound:
            own.append(
                ("dpop", self._proof.proof("POST", self._base + PAYMENTS, granted.access_token))
            )
        return Request(
            "POST", self._base, PAYMENTS, fixed, own, self._message.sign(claims).encode()
        )

    def _form(self, url: str, form: dict[str, str]) -> Request:
        at = urlsplit(url)
        fixed = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("accept", "application/json"),
            ("user-agent", "bench"),
        ]
        own = [("x-fapi-interaction-id", uuid())]
        return Request(
            "POST", f"https://{at.netloc}", at.path, fixed, own, urlencode(form).encode()
        )

    def _assertion(self) -> dict[str, str]:
        now = seconds()
        client = self._tpp.client_id
        claims = {
            "iss": client,
            "sub": client,
            "aud": self._issuer,
            "iat": now,
            "exp": now + 120,
            "jti": uuid(),
        }
        return {
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": self._message.sign(claims),
        }

    def _par(self) -> Request:
        from hub.sandbox.tpp.consent import data_sharing_consent  # noqa: PLC0415 - this mix only

        now = seconds()
        client = self._tpp.client_id
        claims = {
            "iss": client,
            "client_id": client,
            "aud": self._issuer,
            "iat": now,
            "nbf": now,
            "exp": now + 300,
            "jti": uuid(),
            "response_type": "code",
            "redirect_uri": self._tpp.redirect_uris[0],
            "scope": "accounts openid",
            "state": uuid(),
            "nonce": uuid(),
            "code_challenge": base64.urlsafe_b64encode(os.urandom(32)).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            "authorization_details": [
                data_sharing_consent(consent_id=uuid(), expires=now + 86_400)
            ],
        }
        form = {"client_id": client, "request": self._message.sign(claims), **self._assertion()}
        return self._form(self._manifest.hub.par, form)

    def _token(self) -> Request:
        form = {
            "client_id": self._tpp.client_id,
            "grant_type": "client_credentials",
            "scope": "accounts",
        }
        return self._form(self._manifest.hub.token, {**form, **self._assertion()})

    def _discovery(self) -> Request:
        at = urlsplit(self._manifest.hub.discovery)
        fixed = [("accept", "application/json"), ("user-agent", "bench")]
        return Request("GET", f"https://{at.netloc}", at.path, fixed, [])


def uuid() -> str:
    """Return a UUID version 4."""
    digits = bytearray(os.urandom(16))
    digits[6] = digits[6] & 15 | 64
    digits[8] = digits[8] & 63 | 128
    text = digits.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def save(folder: Path, purse: Purse) -> Path:
    """Write a purse into the sandbox's folder, for the load's processes."""
    path = folder / "bench.json"
    path.touch(mode=0o600)
    path.write_bytes(msgspec.json.encode(purse))
    return path
