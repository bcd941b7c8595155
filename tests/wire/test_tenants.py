"""Two tenants on one machine: whatever one of them gave out or trusts is worth nothing at the other, everywhere."""

import re
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from hub.config import Settings, config_folder, load
from hub.contract import load_contract
from hub.lfi.operations import Lfi
from hub.model.clock import FixedClock, SeededDice
from hub.model.route import TokenKind
from hub.observe import Observer
from hub.sandbox.manifest import TenantSection
from hub.sandbox.tls import client_context
from hub.sandbox.tpp import Ask, Callback, Discovery, Pushed, Refused, Tokens, data_sharing_consent
from hub.sandbox.tpp.consent import DATA_SHARING_SCOPE
from hub.sandbox.tpp.identity import ASSERTION_TYPE
from hub.state.memory import MemoryKeeper
from tests.wire.newcomer import Newcomer, log_of, newcomer
from tests.wire.world import Sandbox, free_base

pytestmark = pytest.mark.wire
ID = "5d0b9a2c-5a3c-4c7e-8a66-1c2d3e4f5a6b"


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Start a sandbox of two tenants."""
    world = Sandbox(tmp_path_factory.mktemp("both") / "sandbox", free_base(), "--profile", "both")
    world.start()
    yield world
    assert world.stop() == 0


class Side:
    """One tenant as its TPP and its bank see it."""

    def __init__(self, world: Sandbox, section: TenantSection, suffix: str) -> None:
        self.world = world
        self.hub = section.hub
        self.bank = section.bank
        self.profile = section.profile
        self.state = world.folder / f"state{suffix}"
        self.toml = world.folder / f"hub{suffix}.toml"
        self.tpp: Newcomer

    @property
    def settings(self) -> Settings:
        return load(self.toml, {}).settings

    def as_bank(self) -> httpx.AsyncClient:
        """Call any Hub with this tenant's bank's certificate."""
        folder = self.world.folder
        context = client_context(
            folder / self.world.manifest.ca_bundle,
            folder / self.bank.transport_cert,
            folder / self.bank.transport_key,
        )
        return httpx.AsyncClient(verify=context, trust_env=False)

    @property
    def audience(self) -> Discovery:
        return self.tpp.discovery

    def elsewhere(self, other: "Side") -> Discovery:
        """Return the other's endpoints under this tenant's name: what is signed for one is sent to the other."""
        return msgspec.structs.replace(other.tpp.discovery, issuer=self.tpp.discovery.issuer)


@asynccontextmanager
async def sides(both: Sandbox) -> AsyncIterator[tuple[Side, Side]]:
    manifest = both.manifest
    (beside,) = manifest.tenants
    main = TenantSection(profile="uae", hub=manifest.hub, bank=manifest.bank)
    one, other = Side(both, main, ""), Side(both, beside, "-general")
    section = manifest.tpps[0]
    async with (
        newcomer(both, section, one.hub.issuer) as first,
        newcomer(both, section, other.hub.issuer) as second,
    ):
        one.tpp, other.tpp = first, second
        yield one, other


@pytest.fixture(params=["uae-at-general", "general-at-uae"])
async def pair(both, request):
    """Give the tenant that issued, and the one that must refuse."""
    async with sides(both) as (one, other):
        yield (one, other) if request.param == "uae-at-general" else (other, one)


async def test_the_tenants_have_nothing_in_common_but_the_framework(both):
    async with sides(both) as (one, other):
        a, b = one.settings, other.settings
        assert a.tenant.organisation_id != b.tenant.organisation_id
        assert a.lfi.client_ids != b.lfi.client_ids
        assert a.trust.client_id != b.trust.client_id
        files = [_files_of(side.settings) for side in (one, other)]
        assert not files[0] & files[1]
        shared = {a.tpp.client_ca, a.lfi.client_ca, a.bank.ca, a.trust.ca}
        assert shared == {b.tpp.client_ca, b.lfi.client_ca, b.bank.ca, b.trust.ca}
        keys = [{path.read_bytes() for path in found if path.suffix == ".key"} for found in files]
        assert len(keys[0]) >= 5
        assert not keys[0] & keys[1]
        assert (one.state / "trust.key").read_bytes() != (other.state / "trust.key").read_bytes()


def _files_of(settings: Settings) -> set[Path]:
    named = {
        settings.tpp.certificate,
        settings.tpp.key,
        settings.lfi.certificate,
        settings.lfi.key,
        settings.bank.certificate,
        settings.bank.key,
        settings.trust.certificate,
        settings.trust.key,
        settings.keys.bearer,
        settings.keys.log,
        *settings.keys.signing,
        settings.state.folder,
    }
    return {path for path in named if path is not None}


async def test_no_file_socket_or_key_of_one_is_open_in_the_other_or_readable_by_others(both):
    async with sides(both) as (one, other):
        for side in (one, other):
            assert stat.S_IMODE(side.state.stat().st_mode) == 0o700
            for path in _files_of(side.settings):
                if path.suffix == ".key":
                    assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            for path in side.state.iterdir():
                private = path.is_socket() or path.is_file()
                assert not private or stat.S_IMODE(path.stat().st_mode) == 0o600, path
        for side, stranger in ((one, other), (other, one)):
            held = _open_files(side.hub.pids[0])
            assert any(name.startswith(f"{side.state}/") for name in held)
            private = {str(p) for p in _files_of(stranger.settings)}
            assert not [n for n in held if n.startswith(f"{stranger.state}/") or n in private]


def _open_files(pid: int) -> list[str]:
    names = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            names.append(str(entry.readlink()))
        except OSError:
            continue
    return names


async def test_every_credential_and_reference_of_one_is_refused_at_the_others_authorization_server(
    pair,
):
    here, there = pair
    tokens = await consented(here)
    pushed = await here.tpp.push()
    mixed = here.elsewhere(there)

    # An assertion, and a request object beside a good assertion, that were made for the other one.
    wrong = await here.tpp.tpp.client_credentials(mixed, "openid accounts")
    assert (wrong.status, wrong.code) == (401, "invalid_client")
    detail = data_sharing_consent(consent_id=ID, expires=here.tpp.identity.clock.now() + 900)
    wrong = await here.tpp.tpp.push(mixed, detail, DATA_SHARING_SCOPE)
    assert (wrong.status, wrong.code) == (401, "invalid_client")
    own, foreign = there.audience.issuer, here.audience.issuer
    request = here.tpp.identity.request_object(foreign, {"response_type": "code"})
    ask = Ask(
        method="POST",
        url=there.audience.par,
        form={
            "client_id": here.tpp.identity.client_id,
            "request": request,
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": here.tpp.identity.client_assertion(own),
        },
    )
    answer = await there.tpp.tpp.wire.carry(ask)
    assert (answer.status, answer.json()["error"]) == (400, "invalid_request_object")

    # A code, a refresh token, an access token.
    came = await callback(here, pushed)
    refused = await there.tpp.tpp.redeem(there.audience, came.code, pushed)
    assert isinstance(refused, Refused)
    assert refused.code == "invalid_grant"
    good = await here.tpp.tpp.redeem(here.audience, came.code, pushed)
    assert isinstance(good, Tokens), good
    refused = await there.tpp.tpp.refresh(there.audience, tokens.refresh_token)
    assert isinstance(refused, Refused)
    assert refused.code == "invalid_grant"
    for path in ("/token/introspection", "/introspect", "/token/revocation", "/revoke"):
        form = {
            "token": tokens.access_token,
            "client_id": here.tpp.identity.client_id,
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": here.tpp.identity.client_assertion(own),
        }
        told = await there.tpp.tpp.wire.carry(
            Ask(method="POST", url=there.hub.issuer + path, form=form)
        )
        assert told.status in {200, 404}, (path, told.status)
        assert tokens.access_token.encode() not in told.body
        if "introspect" in path and told.status == 200 and told.json():
            assert told.json() == {"active": False}
    assert (await resource(here, here, tokens.access_token)) == 200

    # A request_uri and an interaction, at the other one's bank face, by its own bank.
    again = await here.tpp.push()
    query = {"client_id": here.tpp.identity.client_id, "request_uri": again.request_uri}
    async with there.as_bank() as bank:
        begun = await bank.get(f"{there.hub.heimdall_base}/auth", params=query)
        assert begun.status_code in {303, 400}, begun.text
        assert "interaction" not in begun.text.lower()
    async with here.as_bank() as bank:
        begun = await bank.get(f"{here.hub.heimdall_base}/auth", params=query)
        assert begun.status_code == 200
    interaction = _interaction(begun)
    async with there.as_bank() as bank:
        for end in ("doConfirm", "doFail"):
            ended = await bank.post(f"{there.hub.heimdall_base}/auth/{interaction}/{end}")
            assert ended.status_code == 400, ended.text


def _interaction(begun: httpx.Response) -> str:
    found = re.search(r'"interactionId":"([^"]+)"', begun.text.replace(" ", ""))
    assert found, begun.text
    return found[1]


async def consented(side: Side) -> Tokens:
    pushed = await side.tpp.push()
    came = await callback(side, pushed)
    tokens = await side.tpp.tpp.redeem(side.audience, came.code, pushed)
    assert isinstance(tokens, Tokens), tokens
    return tokens


async def callback(side: Side, pushed: Pushed) -> Callback:
    came = await side.tpp.callback(pushed)
    assert isinstance(came, Callback), came
    return came


async def resource(side: Side, at: Side, token: str) -> int:
    url = f"{at.hub.resource_base}/open-finance/account-information/v2.1/accounts"
    return (await side.tpp.tpp.get(url, token)).status


async def test_a_token_of_one_opens_no_route_of_the_other(pair):
    here, there = pair
    tokens = await consented(here)
    routes = load_contract(config_folder() / "contract", None).routes
    tried = 0
    for route in routes:
        if route.token is TokenKind.NONE:
            continue
        path = re.sub(r"\{[^}]+\}", ID, route.path)
        headers = {
            "authorization": f"Bearer {tokens.access_token}",
            "x-idempotency-key": ID,
            "x-fapi-interaction-id": ID,
            "content-type": "application/json",
        }
        ask = Ask(
            method=route.method,
            url=there.hub.resource_base + path,
            headers=headers,
            content="{}" if route.method in {"POST", "PATCH", "PUT"} else "",
        )
        answer = await there.tpp.tpp.wire.carry(ask)
        assert (answer.status, answer.body) == (401, b""), (route.id, answer.status)
        tried += 1
    told = [e for e in log_of(there.state) if e.get("verdict") == "refused"]
    assert {e["check"] for e in told[-tried:]} == {"token.unknown"}
    for method in ("GET", "POST"):
        ask = Ask(
            method=method,
            url=there.hub.issuer + "/userinfo",
            headers={"authorization": f"Bearer {tokens.access_token}"},
        )
        assert (await there.tpp.tpp.wire.carry(ask)).status == 401
    assert tried > 20
    assert (await resource(here, here, tokens.access_token)) == 200


async def test_a_consent_of_one_is_nothing_to_the_tpp_or_the_bank_of_the_other(pair):
    here, there = pair
    tokens = await consented(here)
    consent = tokens.authorization_details[0]["consent"]["Data"]["ConsentId"]
    own = await there.tpp.tpp.client_credentials(there.audience, "openid accounts")
    assert isinstance(own, Tokens), own
    base = f"{there.hub.resource_base}/open-finance/account-information/v2.1"
    read = await there.tpp.tpp.get(f"{base}/account-access-consents/{consent}", own.access_token)
    assert read.status in {400, 404}
    async with there.as_bank() as bank:
        manager = there.hub.consent_manager_base
        assert (await bank.get(f"{manager}/consents/{consent}")).status_code == 404
        revoked = await bank.post(
            f"{manager}/consents/{consent}/action/revoke", json={"revokedBy": "LFI"}
        )
        assert revoked.status_code == 404
        for listed in ("/consents", f"/consent-groups/{consent}/consents"):
            found = await bank.get(manager + listed, params={"updatedAt": "0", "pageSize": "500"})
            assert found.status_code in {200, 404}
            assert consent not in found.text
    assert (await resource(here, here, tokens.access_token)) == 200


async def test_the_bank_of_one_is_refused_on_every_route_of_the_others_bank_face(pair, tmp_path):
    here, there = pair
    observer = Observer(FixedClock(0), log=False)
    operations = Lfi(
        settings=there.settings,
        keeper=MemoryKeeper(clock=FixedClock(0)),
        clock=FixedClock(0),
        dice=SeededDice(),
        observer=observer,
    ).lfi_routes()
    observer.close()
    heimdall = [("GET", "/auth"), *(("POST", f"/auth/{{i}}/{e}") for e in ("doConfirm", "doFail"))]
    async with here.as_bank() as bank:
        for method, template in (*operations, *heimdall):
            path = re.sub(r"\{[^}]+\}", ID, template)
            for prefix in ("", "/v2025.32"):
                answer = await bank.request(method, there.hub.consent_manager_base + prefix + path)
                assert answer.status_code in {403, 404}, (method, path, answer.status_code)
                assert prefix or answer.status_code == 403, (method, path)
    async with there.as_bank() as bank:
        assert (await bank.get(f"{there.hub.consent_manager_base}/consents")).status_code == 200


async def test_the_other_hubs_certificate_and_bearer_are_refused_by_a_bank(both, pair):
    here, there = pair
    settings = here.settings
    context = client_context(
        both.folder / both.manifest.ca_bundle, settings.bank.certificate, settings.bank.key
    )
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        answer = await client.get(f"{there.bank.ozone_connect_base}/accounts")
    assert answer.status_code in {401, 403}


async def test_a_block_at_one_is_not_a_block_at_the_other(both):
    from tests.wire.test_admin import admin

    client = both.manifest.tpps[0].client_id
    assert admin(both, "block", client).returncode == 0
    try:
        async with sides(both) as (one, other):
            wrong = await one.tpp.tpp.client_credentials(one.audience, "openid accounts")
            assert isinstance(wrong, Refused)
            good = await other.tpp.tpp.client_credentials(other.audience, "openid accounts")
            assert isinstance(good, Tokens), good
    finally:
        assert admin(both, "unblock", client).returncode == 0
