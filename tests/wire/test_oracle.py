"""The same negative requests at a certified server of others (oidc-provider) and at ours: both refuse each of them.

First the same good requests are accepted by both, so that no refusal is for a reason that nobody meant. Where the two give
another ``error``, the difference is listed here by name, and DECISIONS.md says why ours is as it is.
"""

import socket
import subprocess
import uuid
from contextlib import AsyncExitStack

import httpx
import pytest

from tests.wire.suite import Suite, b64url, opened, raw_jws
from tests.wire.world import ROOT

pytestmark = pytest.mark.wire
CREDENTIALS = {"grant_type": "client_credentials", "scope": "accounts"}


@pytest.fixture(scope="module")
def oracle(sandbox, node_clients):
    """Run oidc-provider with the sandbox's clients; return its issuer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(ROOT / ".venv/bin/node"), "oidc_provider.mjs", str(sandbox.folder), str(port)]
    process = subprocess.Popen(
        command,
        cwd=node_clients,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield f"https://localhost:{port}"
        finally:
            process.stdin.close()


class Theirs(Suite):
    """The same suite against the other server."""

    def __init__(self, world, issuer) -> None:
        super().__init__(world)
        self.issuer = issuer
        self.discovery = issuer + "/.well-known/openid-configuration"


@pytest.fixture
async def both(sandbox, oracle):
    """Open a suite against each: ours first."""
    theirs = Theirs(sandbox, oracle)
    async with opened(sandbox) as ours, AsyncExitStack() as stack:
        await theirs.open(stack)
        yield ours, theirs


async def credentials(suite, **changes):
    return await suite.post_token(suite.first, **(CREDENTIALS | changes))


async def push(suite, *, form=None, assertion=None, signing=None, **claims):
    return await suite.push(
        suite.asked(**claims), form=form, assertion=assertion, **(signing or {})
    )


async def test_both_accept_what_is_right(both):
    for suite in both:
        asked = await suite.pushed()
        code = await suite.code(asked)
        answer = await suite.redeem(asked, code)
        assert answer.status_code == 200, answer.text
        token = answer.json()["refresh_token"]
        assert (await suite.refresh(suite.first, token)).status_code == 200
        assert (await credentials(suite)).status_code == 200


def assertion(**changes):
    async def at_token(suite):
        given = {k: v(suite) if callable(v) else v for k, v in changes.items()}
        return await credentials(suite, assertion=given)

    return at_token


def requested(**changes):
    async def at_par(suite):
        given = {k: v(suite) if callable(v) else v for k, v in changes.items()}
        return await push(suite, **given)

    return at_par


def signed(**signing):
    async def at_par(suite):
        given = {k: v(suite) if callable(v) else v for k, v in signing.items()}
        return await push(suite, signing=given)

    return at_par


def in_form(form):
    async def at_par(suite):
        return await push(suite, form=form)

    return at_par


def later(seconds):
    return lambda suite: suite.clock.now() + seconds


async def replayed_assertion(suite):
    data = {**suite.authentication(suite.first), **CREDENTIALS}
    assert (await suite.first.http.post(suite.token_endpoint, data=data)).status_code == 200
    return await suite.first.http.post(suite.token_endpoint, data=data)


async def assertion_of_another_key(suite):
    return await credentials(suite, assertion={"key": suite.second.key})


async def header_extension(suite):
    claims = {"iss": suite.first.client_id, "sub": suite.first.client_id, "aud": suite.issuer}
    now = suite.clock.now()
    claims |= {"iat": now, "exp": now + 60, "jti": str(uuid.uuid4())}
    header = {"alg": "PS256", "kid": suite.first.kid, "crit": ["exp"], "exp": 1}
    forged = raw_jws(header, claims, suite.first.key)
    return await credentials(suite, client_assertion=forged)


async def changed_assertion(suite):
    made = suite.assertion(suite.first)
    return await credentials(suite, client_assertion=made[:-4] + "AAAA")


async def request_without_a_certificate(suite):
    asked = await suite.pushed()
    return await suite.redeem(asked, await suite.code(asked), via=suite.anonymous)


async def redeemed(suite, **changes):
    asked = await suite.pushed()
    return await suite.redeem(asked, await suite.code(asked), **changes)


async def code_of_another_client(suite):
    return await redeemed(suite, client=suite.second)


async def code_without_verifier(suite):
    return await redeemed(suite, code_verifier=None)


async def code_with_another_verifier(suite):
    return await redeemed(suite, code_verifier="w" * 43)


async def code_with_another_redirect_uri(suite):
    return await redeemed(suite, redirect_uri=suite.second.redirect_uri)


async def code_twice(suite):
    asked = await suite.pushed()
    code = await suite.code(asked)
    assert (await suite.redeem(asked, code)).status_code == 200
    return await suite.redeem(asked, code)


async def refresh_token_of_another_client(suite):
    token = (await redeemed(suite)).json()["refresh_token"]
    return await suite.refresh(suite.second, token)


async def refresh_with_more_scope(suite):
    token = (await redeemed(suite)).json()["refresh_token"]
    return await suite.refresh(suite.first, token, scope="openid accounts payments")


async def parameter_twice(suite):
    asked = suite.asked()
    form = [("request", suite.request_object(asked)), ("client_id", suite.first.client_id)] * 2
    content = httpx.QueryParams([*form, *suite.authentication(suite.first).items()])
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return await suite.first.http.post(suite.par, content=str(content), headers=headers)


async def dpop(suite, **changes):
    headers = {"dpop": suite.proof(suite.first, "POST", suite.token_endpoint, **changes)}
    return await credentials(suite, headers=headers)


def proof(**changes):
    async def at_token(suite):
        given = {k: v(suite) if callable(v) else v for k, v in changes.items()}
        return await dpop(suite, **given)

    return at_token


async def proof_twice(suite):
    headers = {"dpop": suite.proof(suite.first, "POST", suite.token_endpoint)}
    await credentials(suite, headers=headers)
    return await credentials(suite, headers=headers)


async def proof_with_a_private_key(suite):
    return await dpop(suite, header_jwk=suite.first.dpop_key.as_dict(private=True))


NEGATIVES = {
    "assertion for another server": assertion(aud="https://other.example"),
    "assertion for an array of audiences": assertion(
        aud=lambda s: [s.issuer, "https://other.example"]
    ),
    "assertion for the token endpoint": assertion(aud=lambda s: s.token_endpoint),
    "assertion for the PAR endpoint": assertion(aud=lambda s: s.par),
    "assertion without aud": assertion(aud=None),
    "assertion without sub": assertion(sub=None),
    "assertion without iss": assertion(iss=None),
    "assertion without exp": assertion(exp=None),
    "assertion without jti": assertion(jti=None),
    "assertion of the past": assertion(iat=later(-360), exp=later(-300)),
    "assertion of the future": assertion(nbf=later(62), iat=later(62), exp=later(120)),
    "assertion in RS256": assertion(alg="RS256"),
    "assertion of an unknown key": assertion(kid="unknown"),
    "assertion of another client's key": assertion_of_another_key,
    "assertion with crit": header_extension,
    "assertion, changed": changed_assertion,
    "assertion, used": replayed_assertion,
    "no assertion": lambda s: credentials(s, client_assertion=None, client_assertion_type=None),
    "another client_id": lambda s: credentials(s, client_id=s.second.client_id),
    "another assertion type": lambda s: credentials(s, client_assertion_type="urn:x"),
    "unknown grant": lambda s: credentials(s, grant_type="password"),
    "no grant": lambda s: credentials(s, grant_type=None),
    "request without a signature": signed(alg="none"),
    "request in RS256": signed(alg="RS256"),
    "request of another client's key": signed(key=lambda s: s.second.key),
    "request of an unknown key": signed(kid="unknown", key=lambda s: s.second.key),
    "request for another server": requested(aud="https://other.example"),
    "request of another client": requested(client_id=lambda s: s.second.client_id),
    "request by another issuer": requested(iss=lambda s: s.second.client_id),
    "request without exp": requested(exp=None),
    "request without nbf": requested(nbf=None),
    "request without aud": requested(aud=None),
    "request of the past": requested(nbf=later(-300), exp=later(-130)),
    "request of an hour ago": requested(nbf=later(-4200), exp=later(60)),
    "request for too long": requested(exp=later(4200)),
    "request of the future": requested(nbf=later(70), exp=later(300)),
    "request with another redirect_uri": requested(redirect_uri="https://localhost:9/other"),
    "request without response_type": requested(response_type=None),
    "request for a token": requested(response_type="token"),
    "request for code and id_token": requested(response_type="code id_token"),
    "request for a fragment": requested(response_mode="fragment"),
    "request without PKCE": requested(code_challenge=None, code_challenge_method=None),
    "request with plain PKCE": requested(
        code_challenge=b64url(b"v" * 33), code_challenge_method="plain"
    ),
    "request with a short challenge": requested(code_challenge="short"),
    "request with an unknown scope": requested(scope="openid accounts unknown"),
    "request with an unknown type of detail": requested(authorization_details=[{"type": "urn:x"}]),
    "request with a detail without type": requested(authorization_details=[{}]),
    "request inside a request": requested(request="a.b.c"),
    "request_uri inside a request": requested(request_uri="urn:x"),
    "request_uri in the form": in_form({"request_uri": "urn:ietf:params:oauth:request_uri:x"}),
    "no request at all": in_form({"request": None}),
    "plain parameters": in_form({"request": None, "response_type": "code", "scope": "openid"}),
    "parameter twice": parameter_twice,
    "code without a certificate": request_without_a_certificate,
    "code of another client": code_of_another_client,
    "code without verifier": code_without_verifier,
    "code with another verifier": code_with_another_verifier,
    "code with another redirect_uri": code_with_another_redirect_uri,
    "code, used": code_twice,
    "refresh token of another client": refresh_token_of_another_client,
    "refresh with more scope": refresh_with_more_scope,
    "proof without typ": proof(header_typ=None),
    "proof of another type": proof(header_typ="JWT"),
    "proof without a key": proof(header_jwk=None),
    "proof with a private key": proof_with_a_private_key,
    "proof without jti": proof(jti=None),
    "proof without htm": proof(htm=None),
    "proof without htu": proof(htu=None),
    "proof without iat": proof(iat=None),
    "proof for another method": proof(htm="GET"),
    "proof for another place": proof(htu=lambda s: s.par),
    "proof of an hour ago": proof(iat=later(-3600)),
    "proof of the next hour": proof(iat=later(3600)),
    "proof, used": proof_twice,
}

DIFFERENT = {
    "no assertion": ("invalid_client", "invalid_request"),
    "another client_id": ("invalid_client", "invalid_request"),
    "another assertion type": ("invalid_client", "invalid_request"),
    "request without response_type": ("unsupported_response_type", "invalid_request"),
    "request for code and id_token": ("unsupported_response_type", "invalid_request"),
    "request_uri in the form": ("invalid_request", "request_uri_not_supported"),
    "code without a certificate": ("invalid_client", "invalid_grant"),
    "proof of an hour ago": ("invalid_dpop_proof", "use_dpop_nonce"),
    "proof of the next hour": ("invalid_dpop_proof", "use_dpop_nonce"),
    "proof, used": ("invalid_dpop_proof", "invalid_grant"),
}
"""Negatives that both refuse, each with another ``error``: ours, theirs."""

STRICTER = {
    "request for a fragment": "invalid_request",
    "request with an unknown scope": "invalid_scope",
}
"""Negatives that only we refuse."""


def outcome(answer) -> str:
    """Return the error, or that there is none."""
    return answer.json()["error"] if 400 <= answer.status_code < 500 else f"{answer.status_code}"


async def test_both_refuse_every_negative(both):
    ours, theirs = both
    found = {}
    for name, ask in NEGATIVES.items():
        found[name] = (outcome(await ask(ours)), outcome(await ask(theirs)))
    expected = {name: (error, "201") for name, error in STRICTER.items()} | DIFFERENT
    assert {name: two for name, two in found.items() if two[0] != two[1]} == expected
    assert not [name for name, (error, _) in found.items() if error.isdigit()]
    assert len(found) == len(NEGATIVES) > 70


def test_every_difference_is_decided():
    assert set(DIFFERENT) | set(STRICTER) <= set(NEGATIVES)
    decided = (ROOT / "DECISIONS.md").read_text()
    for name in (*DIFFERENT, *STRICTER):
        assert f"`{name}`" in decided, name
