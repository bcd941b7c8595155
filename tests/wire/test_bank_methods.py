"""The methods towards the bank, by a Hub in processes of its own: what the bank sees above mutual TLS.

The fourth, JWT Auth, is what every other test over the wire has: the model bank refuses a call without its bearer, and
``tests/sandbox/test_bank_connect.py`` breaks each of its claims.
"""

from base64 import b64decode

import pytest
import trio

from hub.sandbox.server import serve_site
from hub.sandbox.site import SiteResponse
from hub.sandbox.tls import server_context
from hub.sandbox.tpp import Ask
from tests.wire.operations import client_token
from tests.wire.own_hub import OwnHub, copy_state, free_ports, settings_beside
from tests.wire.test_lifecycle import reissued

pytestmark = pytest.mark.wire
ATMS = "/open-finance/atm/v2.1/atms"
SECRET = "s3cret-of-the-bank"
TOKEN = b'{"access_token":"of-the-bank","expires_in":300}'
EMPTY = b'{"data":[],"meta":{"LastUpdatedDateTime":"2026-01-01T00:00:00Z","TotalRecords":0}}'
METHODS = ("api_key", "oauth", "mtls")


class Bank:
    """A bank that notes who called it with what, and answers that it has no cash machines."""

    def __init__(self) -> None:
        self.seen = []

    async def __call__(self, request) -> SiteResponse:
        self.seen.append(request)
        body = TOKEN if request.path == "/token" else EMPTY
        return SiteResponse(headers=(("content-type", "application/json"),), body=body)

    def of(self, path):
        return [request for request in self.seen if request.path == path]


def settings_of(method, port, secret) -> dict[str, object]:
    """Return what a tenant says of its bank."""
    more = {
        "api_key": {"api_key": str(secret)},
        "oauth": {
            "client_id": "hub-at-the-bank",
            "client_secret": str(secret),
            "token_endpoint": f"https://localhost:{port}/token",
        },
        "mtls": {},
    }
    return {"base_url": f"https://localhost:{port}", "auth": method, **more[method]}


@pytest.mark.parametrize("method", METHODS)
async def test_the_bank_sees_what_was_agreed_and_a_certificate(sandbox, tpp, tmp_path, method):
    token = await client_token(tpp, "atm")
    folder = tmp_path / "hub"
    copy_state(sandbox, folder)
    (port,) = free_ports(1)
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    settings = settings_beside(sandbox, folder, bank=settings_of(method, port, secret))
    certificate, key = reissued(sandbox)[0]
    tls = server_context(certificate, key, sandbox.folder / sandbox.manifest.ca_bundle, "required")
    bank = Bank()
    hub = OwnHub(folder, settings)
    async with trio.open_nursery() as nursery:
        await nursery.start(_serve, bank, port, tls)
        await trio.to_thread.run_sync(hub.start)
        headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
        url = f"https://localhost:{hub.port}{ATMS}"
        answer = await tpp.tpp.wire.carry(Ask(method="GET", url=url, headers=headers))
        assert await trio.to_thread.run_sync(hub.stop) == 0
        nursery.cancel_scope.cancel()
    assert answer.status == 200, (answer.status, answer.body)
    (asked,) = bank.of("/atm")
    assert asked.certificate, "mutual TLS"
    check(method, asked, bank)
    assert SECRET.encode() not in hub.log.read_bytes()


async def _serve(bank, port, tls, *, task_status):
    await serve_site(bank, host="127.0.0.1", port=port, tls=tls, task_status=task_status)


def check(method, asked, bank) -> None:
    """Hold what the bank saw against the method."""
    said = asked.header("authorization")
    match method:
        case "api_key":
            assert said == SECRET
        case "oauth":
            (token,) = [t for t in bank.of("/token") if b"scope=atm" in t.body]
            basic = token.header("authorization").removeprefix("Basic ")
            assert b64decode(basic) == f"hub-at-the-bank:{SECRET}".encode()
            assert token.body == b"grant_type=client_credentials&scope=atm"
            assert token.certificate
            assert said == "Bearer of-the-bank"
        case "mtls":
            assert said == ""
