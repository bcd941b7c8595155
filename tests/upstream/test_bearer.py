"""How the Hub authenticates to the bank: JWT Auth, API key, OAuth, the bank's own token, and nothing in the log."""

import base64

import orjson
import pytest
import trio
from joserfc import jws
from joserfc.jwk import RSAKey

from hub.model.clock import FixedClock, SeededDice
from hub.model.fault import Fault
from hub.upstream.bearer import ClientCredentials, JwtAuth, Subject, TokenAnswer
from tests.upstream.scripted import BEARER, OK, Identity, answering, bank, connections, get


def jwt_auth(clock):
    return JwtAuth(
        subject=Subject("Bank PJSC", "org-1"),
        audience="LFI-AUD",
        key=BEARER,
        clock=clock,
        dice=SeededDice(),
        life=30,
    )


def claims_of(value):
    token = value.removeprefix(b"Bearer ").decode()
    key = RSAKey.import_key(BEARER.key.public_key())
    verified = jws.deserialize_compact(token, key, algorithms=["PS256"])
    return verified.headers(), orjson.loads(verified.payload)


async def test_a_jwt_auth_token_holds_exactly_the_agreed_members():
    header, claims = claims_of(await jwt_auth(FixedClock(1000)).value("accounts"))
    assert header == {"alg": "PS256", "typ": "JOSE", "cty": "json", "kid": "sig3"}
    jti = claims.pop("jti")
    assert len(jti) == 36
    assert claims == {
        "iss": "Bank PJSC",
        "sub": "org-1",
        "aud": "LFI-AUD",
        "iat": 1000,
        "exp": 1030,
        "scope": "accounts",
    }


async def test_a_token_is_used_again_while_a_third_of_its_life_is_left():
    clock = FixedClock(1000)
    source = jwt_auth(clock)
    first = await source.value("accounts")
    assert await source.value("payments") != first
    clock.advance(19)
    assert await source.value("accounts") == first
    clock.advance(1)
    second = await source.value("accounts")
    assert second != first
    clock.advance(-86400)
    assert await source.value("accounts") != second, "a clock set back makes a new one"


async def test_the_bearer_is_sent_and_the_banks_own_token_goes_before_it(tmp_path):
    heads = []

    async def script(line):
        while head := await line.request():
            heads.append(head)
            await line.say(OK)

    async with bank(script, tmp_path, auth="jwt") as (_, hub):
        await hub.exchange(get(scope="accounts"))
        await hub.exchange(get(bearer="connect-token"))
    fields = [
        dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if line) for head in heads
    ]
    _, claims = claims_of(fields[0][b"authorization"])
    assert (claims["iss"], claims["sub"]) == ("Bank", "org-1")
    assert fields[1][b"authorization"] == b"Bearer connect-token"


async def test_an_api_key_is_sent_as_it_stands_and_taken_up_when_it_changes(tmp_path):
    heads = []

    async def script(line):
        while head := await line.request():
            heads.append(head)
            await line.say(OK)

    path = tmp_path / "key"
    path.write_text("secret-1\n")
    async with bank(script, tmp_path, auth="api_key", api_key=path) as (_, hub):
        await hub.exchange(get())
        path.write_text("secret-22\n")
        hub.reload()
        await hub.exchange(get())
    assert b"authorization: secret-1\r\n" in heads[0]
    assert b"authorization: secret-22\r\n" in heads[1]


def credentials(ask, tmp_path, clock):
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    return ClientCredentials(client_id="hub", secret=secret, ask=ask, clock=clock)


async def test_one_oauth_token_is_fetched_however_many_wait(tmp_path):
    asked = []

    async def ask(form, headers):
        asked.append((form, headers))
        await trio.lowlevel.checkpoint()
        body = orjson.dumps({"access_token": f"t{len(asked)}", "expires_in": 60})
        return TokenAnswer(200, body)

    clock = FixedClock(1000)
    source = credentials(ask, tmp_path, clock)
    values = []

    async def one():
        values.append(await source.value("accounts"))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(one)
    assert values == [b"Bearer t1"] * 5
    form, headers = asked[0]
    assert form == b"grant_type=client_credentials&scope=accounts"
    assert base64.b64decode(headers["authorization"].split()[1]) == b"hub:s3cret"
    clock.advance(50)
    assert await source.value("accounts") == b"Bearer t2"


@pytest.mark.parametrize(
    "answer",
    [
        TokenAnswer(401, b"{}"),
        TokenAnswer(200, b"no json"),
        TokenAnswer(200, b"[]"),
        TokenAnswer(200, b'{"access_token": "a\\nb"}'),
        TokenAnswer(200, b'{"access_token": null}'),
        TokenAnswer(200, b'{"access_token": ""}'),
        TokenAnswer(200, b'{"access_token": {"a": 1}}'),
        TokenAnswer(500, b'{"access_token": "x"}'),
    ],
)
async def test_a_token_endpoint_that_fails_is_a_fault_before_anything_was_sent(answer, tmp_path):
    async def ask(_form, _headers):
        return answer

    fault = await credentials(ask, tmp_path, FixedClock(1)).value("accounts")
    assert isinstance(fault, Fault)
    assert fault.check == "bank.unreachable"
    assert "s3cret" not in repr(fault)
    assert fault.private.endswith("(sent=no)")


async def test_a_secret_that_cannot_be_read_is_a_fault_and_told_without_its_path(tmp_path):
    async def ask(_form, _headers):
        raise AssertionError("nothing to ask with")

    source = credentials(ask, tmp_path, FixedClock(1))
    (tmp_path / "secret").unlink()
    fault = await source.value("accounts")
    assert fault.private == "the client secret cannot be read: FileNotFoundError (sent=no)"
    (tmp_path / "secret").write_bytes(b"\xff\xfe")
    assert (await source.value("accounts")).check == "bank.unreachable"


async def test_a_token_that_the_bank_withdrew_is_replaced_and_not_at_each_call(
    tmp_path, autojump_clock
):
    asked = []

    async def ask(_form, _headers):
        asked.append(1)
        return TokenAnswer(
            200, orjson.dumps({"access_token": f"t{len(asked)}", "expires_in": 3600})
        )

    source = credentials(ask, tmp_path, FixedClock(1))
    assert await source.value("accounts") == b"Bearer t1"
    source.refused("accounts")
    assert await source.value("accounts") == b"Bearer t1", "it is new: another would fare no better"
    autojump_clock.jump(10)
    source.refused("payments")
    assert await source.value("accounts") == b"Bearer t1"
    source.refused("accounts")
    assert await source.value("accounts") == b"Bearer t2"


async def test_an_answer_of_401_says_that_the_token_was_refused(tmp_path):
    refused = []
    no = b"HTTP/1.1 401 X\r\ncontent-length: 0\r\n\r\n"
    async with bank(answering(no), tmp_path) as (_, hub):
        hub._bearer.refused = refused.append
        await hub.exchange(get(scope="accounts"))
        await hub.exchange(get(scope="accounts", bearer="the bank's own"))
    assert refused == ["accounts"]


async def test_oauth_tokens_come_over_the_same_mutual_tls(tmp_path):
    seen = []

    async def script(line):
        while head := await line.request():
            seen.append(head)
            token = b'{"access_token":"tok","expires_in":300}'
            answer = OK.replace(b"length: 2", b"length: %d" % len(token)).replace(b"{}", token)
            await line.say(answer if head.startswith(b"POST /token") else OK)

    identity = Identity(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    async with bank(script, tmp_path, identity=identity) as (peer, _):
        over = {
            "auth": "oauth",
            "client_id": "hub",
            "client_secret": secret,
            "token_endpoint": f"https://localhost:{peer.port}/token",
        }
        async with bank(answering(OK), tmp_path, identity=identity, **over) as (other, hub):
            assert (await hub.exchange(get())).status == 200
            assert (await hub.exchange(get())).status == 200
            assert other.connections == 1
    assert len(seen) == 1


def test_an_authentication_without_its_credentials_is_refused_at_the_start(tmp_path):
    Identity(tmp_path)
    with pytest.raises(ValueError, match=r"bank\.auth"):
        connections(tmp_path, 1, auth="api_key")


async def test_where_mutual_tls_is_enough_no_authorization_is_sent(tmp_path):
    heads = []

    async def script(line):
        while head := await line.request():
            heads.append(head)
            await line.say(OK)

    async with bank(script, tmp_path, auth="mtls") as (_, hub):
        assert (await hub.exchange(get(scope="accounts"))).status == 200
    assert b"authorization" not in heads[0].lower()
