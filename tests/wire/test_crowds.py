"""Fifty at once over two workers: of what may be used once, at most one use succeeds."""

import uuid
from pathlib import Path

import httpx
import pytest
import trio

from tests.wire.suite import opened

pytestmark = pytest.mark.wire
CROWD = 50
CREDENTIALS = {"grant_type": "client_credentials", "scope": "accounts"}


def workers_of(keeper: int) -> list[int]:
    """Return the gateway processes that a keeper's process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = path.read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if int(parent) == keeper:
            found.append(int(path.parent.name))
    return found


def held_by(pid: int, port: int) -> int:
    """Count the established connections on a port that a process holds (proc(5))."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {row[9] for row in rows if row[3] == "01" and row[1].endswith(f":{port:04X}")}
    links = [
        str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()
    ]
    return sum(f"socket:[{inode}]" in links for inode in inodes)


async def at_once(*calls):
    """Run the calls together; return their answers."""
    answers = []

    async def one(call):
        answers.append(await call())

    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(one, call)
    return answers


def statuses(answers):
    return sorted(answer.status_code for answer in answers)


@pytest.fixture
async def suite(general_sandbox):
    async with opened(general_sandbox) as made:
        yield made


@pytest.fixture
async def crowd(suite):
    """Open fifty connections of one client, shared out over both workers."""
    limits = httpx.Limits(max_connections=CROWD, max_keepalive_connections=CROWD)
    context = suite.tls(suite.manifest.tpps[0])
    async with httpx.AsyncClient(
        verify=context, trust_env=False, timeout=30, limits=limits
    ) as client:

        async def post(url, data, headers=None):
            return await at_once(
                *[lambda: client.post(url, data=data, headers=headers) for _ in range(CROWD)]
            )

        discovery = suite.manifest.hub.discovery
        assert statuses(await at_once(*[lambda: client.get(discovery)] * CROWD)) == [200] * CROWD
        [keeper] = suite.manifest.hub.pids
        port = httpx.URL(suite.issuer).port
        shares = [held_by(pid, port) for pid in workers_of(keeper)]
        assert len(shares) == 2
        assert min(shares) > 0, "both workers must take part"
        post.client = client
        yield post


def token_form(suite, **form):
    return {**suite.authentication(suite.first), **form}


async def test_one_of_fifty_redeems_a_code_and_what_it_got_is_then_revoked(suite, crowd):
    asked = await suite.pushed()
    code = await suite.code(asked)
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": asked.claims["redirect_uri"],
        "code_verifier": asked.verifier,
    }
    forms = [token_form(suite, **form) for _ in range(CROWD)]
    url = suite.token_endpoint
    calls = [lambda data=data: crowd.client.post(url, data=data) for data in forms]
    answers = await at_once(*calls)
    assert statuses(answers) == [200] + [400] * (CROWD - 1)
    (winner,) = [answer for answer in answers if answer.status_code == 200]
    token = winner.json()["access_token"]
    assert (await suite.get(suite.accounts, suite.first, token)).status_code == 401


async def test_one_of_fifty_authenticates_with_an_assertion(suite, crowd):
    answers = await crowd(suite.token_endpoint, token_form(suite, **CREDENTIALS))
    assert statuses(answers) == [200] + [401] * (CROWD - 1)


async def test_one_of_fifty_uses_a_proof(suite, crowd):
    url = suite.token_endpoint
    proof = {"dpop": suite.proof(suite.first, "POST", url)}
    forms = [token_form(suite, **CREDENTIALS) for _ in range(CROWD)]
    calls = [lambda data=data: crowd.client.post(url, data=data, headers=proof) for data in forms]
    assert statuses(await at_once(*calls)) == [200] + [400] * (CROWD - 1)


async def test_one_of_fifty_uses_a_proof_at_a_resource(general_sandbox, crowd):
    async with opened(general_sandbox, dpop=True) as suite:
        token = (await suite.tokens(await suite.pushed()))["access_token"]
        proof = suite.proof(suite.first, "GET", suite.accounts, token=token)
        headers = {"authorization": f"DPoP {token}", "dpop": proof}
        calls = [lambda: crowd.client.get(suite.accounts, headers=headers)] * CROWD
        assert statuses(await at_once(*calls)) == [200] + [401] * (CROWD - 1)


async def test_one_of_fifty_pushes_a_request_object(suite, crowd):
    asked = suite.asked(jti=str(uuid.uuid4()))
    request = suite.request_object(asked)
    forms = [token_form(suite, request=request) for _ in range(CROWD)]
    calls = [lambda data=data: crowd.client.post(suite.par, data=data) for data in forms]
    assert statuses(await at_once(*calls)) == [201] + [400] * (CROWD - 1)


async def test_one_of_fifty_finishes_a_request_uri(suite, crowd):
    asked = await suite.pushed()
    base, folder = suite.manifest.hub.heimdall_base, suite.world.folder
    context = suite.tls()
    bank = suite.manifest.bank
    context.load_cert_chain(folder / bank.transport_cert, folder / bank.transport_key)
    limits = httpx.Limits(max_connections=CROWD)
    query = {"client_id": asked.client.client_id, "request_uri": asked.request_uri}
    async with httpx.AsyncClient(
        verify=context, trust_env=False, timeout=30, limits=limits
    ) as client:
        opened_at_once = await at_once(*[lambda: client.get(f"{base}/auth", params=query)] * CROWD)
        assert statuses(opened_at_once) == [200] * CROWD
        names = [answer.json()["interaction"]["interactionId"] for answer in opened_at_once]
        calls = [lambda name=name: client.post(f"{base}/auth/{name}/doConfirm") for name in names]
        answers = await at_once(*calls)
    assert statuses(answers) == [303] + [400] * (CROWD - 1)
    again = await suite.visit(suite.front(asked))
    assert again.callback["error"] == "invalid_request_uri"


async def test_fifty_refresh_at_once_and_each_gets_a_token_of_its_own(suite, crowd):
    refresh_token = (await suite.tokens(await suite.pushed()))["refresh_token"]
    form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    forms = [token_form(suite, **form) for _ in range(CROWD)]
    url = suite.token_endpoint
    calls = [lambda data=data: crowd.client.post(url, data=data) for data in forms]
    answers = await at_once(*calls)
    assert statuses(answers) == [200] * CROWD
    tokens = [answer.json()["access_token"] for answer in answers]
    assert len(set(tokens)) == CROWD
    revoked = suite.authentication(suite.first) | {"token": refresh_token}
    assert (
        await suite.first.http.post(suite.metadata["revocation_endpoint"], data=revoked)
    ).status_code == 200
    calls = [lambda token=token: suite.get(suite.accounts, suite.first, token) for token in tokens]
    assert statuses(await at_once(*calls)) == [401] * CROWD
