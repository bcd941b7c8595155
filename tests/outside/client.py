"""A client of the sandbox that knows nothing of the package: httpx, joserfc and ``sandbox.json``.

    python client.py DIR [--customer USERNAME]

It takes a customer's consent to account data and prints one JSON object with every answer. Exit status 0 means
that the whole journey worked. It is an example for writers of TPPs too: one file, read from top to bottom.
"""

import argparse
import base64
import hashlib
import json
import secrets
import ssl
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import httpx
from joserfc import jws, jwt
from joserfc.jwk import KeySet, RSAKey

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
CONSENT = "urn:openfinanceuae:account-access-consent:v2.1"
PERMISSIONS = [
    "ReadAccountsBasic",
    "ReadAccountsDetail",
    "ReadBalances",
    "ReadTransactionsBasic",
    "ReadTransactionsDetail",
]


class FirstForm(HTMLParser):
    """Read the first form of a page: where it goes, its hidden fields, and the values of each field."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.method = "get"
        self.hidden: dict[str, str] = {}
        self.values: dict[str, list[str]] = {}
        self.inside = False

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag == "form" and self.action is None:
            self.action, self.method = found.get("action") or "", found.get("method", "get").lower()
            self.inside = True
        elif self.inside and tag in {"input", "button", "select"} and found.get("name"):
            self.values.setdefault(found["name"], []).append(found.get("value") or "")
            if found.get("type") == "hidden":
                self.hidden[found["name"]] = found.get("value") or ""

    def handle_endtag(self, tag):
        if tag == "form":
            self.inside = False


class Client:
    """One TPP of the manifest, and one customer's browser."""

    def __init__(self, folder: Path, customer: str) -> None:
        self.manifest = json.loads((folder / "sandbox.json").read_text())
        assert self.manifest["version"] == 1
        self.tpp = self.manifest["tpps"][0]
        people = self.manifest["customers"]
        self.customer = next(p for p in people if customer in ("", p["username"]))
        self.key = RSAKey.import_key((folder / self.tpp["signing_key"]).read_text())
        ca = str(folder / self.manifest["ca_bundle"])
        mtls = ssl.create_default_context(cafile=ca)
        mtls.load_cert_chain(
            folder / self.tpp["transport_cert"], folder / self.tpp["transport_key"]
        )
        self.http = httpx.Client(verify=mtls, timeout=20, trust_env=False)
        plain = ssl.create_default_context(cafile=ca)
        self.browser = httpx.Client(verify=plain, timeout=20, trust_env=False)
        self.metadata = self._discover()

    def _discover(self) -> dict:
        hub = self.manifest["hub"]
        metadata = self.http.get(hub["discovery"]).raise_for_status().json()
        assert metadata["issuer"] == hub["issuer"]
        return metadata

    def endpoint(self, name: str) -> str:
        return self.metadata.get("mtls_endpoint_aliases", {}).get(name) or self.metadata[name]

    def sign(self, claims: dict) -> str:
        header = {"alg": "PS256", "kid": self.tpp["signing_kid"]}
        return jwt.encode(header, claims, self.key, algorithms=["PS256"])

    def authentication(self) -> dict[str, str]:
        now = int(time.time())
        claims = {
            "iss": self.tpp["client_id"],
            "sub": self.tpp["client_id"],
            "aud": self.metadata["issuer"],
            "iat": now,
            "exp": now + 60,
            "jti": str(uuid.uuid4()),
        }
        return {"client_assertion_type": ASSERTION, "client_assertion": self.sign(claims)}

    def push(self) -> tuple[str, str, str]:
        """Push the authorization request; return request_uri, state and code verifier."""
        now = int(time.time())
        verifier, state = secrets.token_urlsafe(32), str(uuid.uuid4())
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest())
        self.nonce = str(uuid.uuid4())
        until = datetime.now(UTC) + timedelta(days=30)
        consent = {
            "ConsentId": str(uuid.uuid4()),
            "ExpirationDateTime": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "Permissions": PERMISSIONS,
            "OpenFinanceBilling": {"UserType": "Retail", "Purpose": "AccountAggregation"},
        }
        request = self.sign(
            {
                "iss": self.tpp["client_id"],
                "client_id": self.tpp["client_id"],
                "aud": self.metadata["issuer"],
                "nbf": now,
                "exp": now + 300,
                "response_type": "code",
                "scope": "accounts openid",
                "redirect_uri": self.tpp["redirect_uris"][0],
                "state": state,
                "nonce": self.nonce,
                "code_challenge": challenge.rstrip(b"=").decode(),
                "code_challenge_method": "S256",
                "authorization_details": [{"type": CONSENT, "consent": consent}],
            }
        )
        answer = self.http.post(
            self.endpoint("pushed_authorization_request_endpoint"),
            data={"client_id": self.tpp["client_id"], "request": request, **self.authentication()},
        )
        assert answer.status_code == 201, answer.text
        return answer.json()["request_uri"], state, verifier

    def consent(self, request_uri: str) -> dict[str, str]:
        """Be the customer: log in at the bank, approve all accounts; return the callback's parameters."""
        query = {
            "client_id": self.tpp["client_id"],
            "response_type": "code",
            "scope": "accounts openid",
            "request_uri": request_uri,
        }
        url = f"{self.metadata['authorization_endpoint']}?{urlencode(query)}"
        answer = self.browser.get(url)
        for _ in range(10):
            if answer.has_redirect_location:
                url = urljoin(url, answer.headers["location"])
                if url.startswith(self.tpp["redirect_uris"][0]):
                    query = parse_qs(urlsplit(url).query)
                    return {name: values[0] for name, values in query.items()}
                answer = self.browser.get(url)
                continue
            assert answer.status_code == 200, answer.text
            answer, url = self._fill_in(answer, url)
        raise AssertionError("the bank's pages do not end")

    def _fill_in(self, page: httpx.Response, url: str) -> tuple[httpx.Response, str]:
        form = FirstForm()
        form.feed(page.text)
        fields: dict[str, str | list[str]] = dict(form.hidden)
        if "username" in form.values:
            fields["username"] = self.customer["username"]
            fields["password"] = self.customer["password"]
        else:
            fields["account"] = form.values["account"]
            fields["decision"] = "approve"
        url = urljoin(url, form.action or "")
        return self.browser.request(form.method.upper(), url, data=fields), url

    def token(self, **form: str) -> dict:
        answer = self.http.post(
            self.endpoint("token_endpoint"),
            data={"client_id": self.tpp["client_id"], **form, **self.authentication()},
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def check_id_token(self, token: str) -> dict:
        keys = KeySet.import_key_set(self.http.get(self.metadata["jwks_uri"]).json())
        verified = jws.deserialize_compact(token, keys, algorithms=["PS256"])
        claims = json.loads(verified.payload)
        assert claims["iss"] == self.metadata["issuer"]
        assert claims["aud"] == self.tpp["client_id"]
        assert claims["nonce"] == self.nonce
        return claims

    def read(self, path: str, access_token: str) -> dict:
        base = f"{self.manifest['hub']['resource_base']}/open-finance/account-information/v2.1"
        interaction = str(uuid.uuid4())
        headers = {
            "authorization": f"Bearer {access_token}",
            "x-fapi-interaction-id": interaction,
            "x-fapi-customer-ip-address": "192.0.2.9",
        }
        answer = self.http.get(base + path, headers=headers)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        assert answer.headers["x-fapi-interaction-id"] == interaction
        return answer.json()

    def journey(self) -> dict:
        request_uri, state, verifier = self.push()
        callback = self.consent(request_uri)
        assert callback["state"] == state
        assert callback["iss"] == self.metadata["issuer"]
        tokens = self.token(
            grant_type="authorization_code",
            code=callback["code"],
            redirect_uri=self.tpp["redirect_uris"][0],
            code_verifier=verifier,
        )
        claims = self.check_id_token(tokens["id_token"]) if "id_token" in tokens else {}
        refreshed = self.token(grant_type="refresh_token", refresh_token=tokens["refresh_token"])
        access = refreshed["access_token"]
        accounts = self.read("/accounts", access)
        one = "/accounts/" + accounts["Data"]["Account"][0]["AccountId"]
        return {
            "callback": sorted(callback),
            "token": sorted(tokens),
            "id_token": sorted(claims),
            "refresh": sorted(refreshed),
            "accounts": accounts,
            "account": self.read(one, access),
            "balances": self.read(f"{one}/balances", access),
            "transactions": self.read(f"{one}/transactions", access),
        }

    def close(self) -> None:
        self.http.close()
        self.browser.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--customer", default="")
    options = parser.parse_args()
    client = Client(options.folder, options.customer)
    try:
        print(json.dumps(client.journey()))
    finally:
        client.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
