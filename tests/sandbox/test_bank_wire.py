"""The model bank opened from files and served over TLS: key store, Hub, browser and bank on real sockets."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trustme
from joserfc import jwt
from joserfc.jwk import RSAKey

from hub.model.clock import FixedClock, SeededDice
from hub.sandbox.bank.bank import Bank
from hub.sandbox.browser import Browser
from hub.sandbox.server import SiteHandler, SiteRequest, SiteResponse, serve_site
from hub.sandbox.tls import client_context, server_context
from tests.sandbox.bank_world import (
    CONSENT,
    HEADERS,
    HUB_ORG,
    KEY,
    NOW,
    PROVIDER,
    TPP_ORG,
    account_access,
    bearer,
)

BANK_ORG = "88888888-8888-4888-8888-888888888888"
ACCOUNT = "100100000001"


class Files:
    """Certificates and keys on disk, as the sandbox's trust framework would issue them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(self.ca)
        self.server = self.issue("server", "Model Bank", BANK_ORG)
        self.bank = self.issue("c3", "Model Bank", BANK_ORG)
        self.hub = self.issue("c4", "Hub Operator", HUB_ORG)
        self.tpp = self.issue("c1", "A TPP", TPP_ORG)
        self.signing = RSAKey.generate_key(2048, {"kid": "sig4"})
        self.signing_path = folder / "sig4.pem"
        self.signing_path.write_bytes(self.signing.as_pem(private=True))

    def issue(self, name: str, organisation: str, organisation_id: str) -> tuple[Path, Path]:
        leaf = self._authority.issue_cert(
            "localhost",
            common_name=name,
            organization_name=organisation,
            organization_unit_name=organisation_id,
        )
        cert, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        leaf.cert_chain_pems[0].write_to_path(cert)
        leaf.private_key_pem.write_to_path(key)
        return cert, key


class Wire:
    """All sites of the little world, and what the scripted Hub saw."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.seen: list[SiteRequest] = []
        self.connect = ""
        self.pages = ""

    async def keystore(self, request: SiteRequest) -> SiteResponse:
        keys = {"keys": [KEY.as_dict(private=False)]}
        return SiteResponse(body=json.dumps(keys).encode())

    async def hub(self, request: SiteRequest) -> SiteResponse:
        self.seen.append(request)
        if request.path == "/auth":
            about = {"interactionId": "int-1", "consentIdsList": [CONSENT]}
            return _json({"interaction": about, "tpp": {"tppName": "Budget"}})
        if request.path.startswith("/auth/"):
            return SiteResponse(status=303, headers=(("location", f"{self.pages}/style.css"),))
        if request.method == "GET":
            return _json({"data": account_access(), "meta": {}})
        return SiteResponse(status=204)

    def client(self, pair: tuple[Path, Path] | None, *, http2: bool = False) -> httpx.AsyncClient:
        context = client_context(self.files.ca, *(pair or (None, None)))
        return httpx.AsyncClient(
            verify=context, base_url=self.connect, http2=http2, http1=not http2
        )


def _json(body: Any) -> SiteResponse:
    return SiteResponse(
        headers=(("content-type", "application/json"),), body=json.dumps(body).encode()
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def wire(files: Files, tmp_path: Path) -> AsyncIterator[Wire]:
    made = Wire(files)
    async with trio.open_nursery() as nursery:

        async def site(handler: SiteHandler, client_cert: str) -> str:
            tls = server_context(*files.server, files.ca, client_cert)

            async def serve(task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
                await serve_site(
                    handler, host="localhost", port=0, tls=tls, task_status=task_status
                )

            return f"https://localhost:{await nursery.start(serve)}"

        hub = await site(made.hub, "required")
        bank = Bank.open(
            tmp_path / "bank",
            provider_id=PROVIDER,
            hub_heimdall_base=hub,
            hub_consent_manager_base=hub,
            ca_bundle=files.ca,
            transport_cert=files.bank[0],
            transport_key=files.bank[1],
            hub_client_subject=HUB_ORG,
            hub_keys_url=await site(made.keystore, "none") + "/application.jwks",
            clock=FixedClock(NOW),
            dice=SeededDice(),
            signing_key=files.signing_path,
            signing_kid="sig4",
        )
        made.connect = await site(bank.ozone_connect_handler, "optional")
        made.pages = await site(bank.pages_handler, "none") + "/open-finance"
        yield made
        await bank.aclose()
        nursery.cancel_scope.cancel()


def hub_headers() -> dict[str, str]:
    who = "eyJ1c2VySWQiOiAidS03YzFkNWUwMSJ9"  # {"userId": "u-7c1d5e01"}
    return {
        **HEADERS,
        "o3-consent-id": CONSENT,
        "o3-psu-identifier": who,
        "authorization": bearer(),
    }


async def approve(wire: Wire) -> None:
    async with Browser(client_context(wire.files.ca)) as browser:
        page = await browser.visit(f"{wire.pages}?client_id=a&request_uri=b")
        form = page.form_with("username", "password")
        assert form is not None
        page = await browser.submit(form, {"username": "aisha", "password": "pearl-diver-21"})
        form = page.form_with("account", "decision")
        assert form is not None
        page = await browser.submit(form, {"account": [ACCOUNT], "decision": "approve"})
        assert page.url.endswith("/style.css")


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
async def test_customer_consents_in_a_browser_and_the_hub_reads_the_account(
    wire: Wire, http2: bool
) -> None:
    await approve(wire)
    async with wire.client(wire.files.hub, http2=http2) as hub:
        path = f"/accounts?accountIds={ACCOUNT}&page=1&page-size=100"
        answer = await hub.get(path, headers=hub_headers())
        assert answer.status_code == 200, answer.text
        assert [account["id"] for account in answer.json()["data"]] == [ACCOUNT]


async def test_bank_shows_its_certificate_and_signs_its_calls_to_the_hub(wire: Wire) -> None:
    await approve(wire)
    methods = [(request.method, request.path) for request in wire.seen]
    assert methods[0] == ("GET", "/auth")
    assert methods[-2:] == [("PATCH", f"/consents/{CONSENT}"), ("POST", "/auth/int-1/doConfirm")]
    for request in wire.seen:
        assert request.certificate
        scheme, token = request.header("authorization").split(" ")
        assert scheme == "Bearer"
        claims = jwt.decode(token, wire.files.signing, algorithms=["PS256"]).claims
        assert (claims["iss"], claims["sub"], claims["aud"]) == ("Model Bank", BANK_ORG, PROVIDER)
        assert claims["exp"] == NOW + 30


async def test_tpp_is_refused_at_the_banks_door_even_with_the_hubs_bearer(wire: Wire) -> None:
    async with wire.client(wire.files.tpp) as tpp:
        answer = await tpp.get(f"/accounts/{ACCOUNT}", headers=hub_headers())
        assert answer.status_code == 401
        assert answer.json()["errorCode"] == "Certificate.NotAccepted"


async def test_hub_without_its_bearer_is_refused(wire: Wire) -> None:
    async with wire.client(wire.files.hub) as hub:
        headers = {k: v for k, v in hub_headers().items() if k != "authorization"}
        assert (await hub.get(f"/accounts/{ACCOUNT}", headers=headers)).status_code == 401


async def test_anybody_may_say_hello(wire: Wire) -> None:
    async with wire.client(None) as nobody:
        assert (await nobody.get("/hello")).status_code == 200
        assert (await nobody.get("/hello-mtls")).status_code == 401
    async with wire.client(wire.files.hub) as hub:
        assert (await hub.get("/hello-mtls")).json()["mtlsStatus"] == "established"
