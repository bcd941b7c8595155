"""Webhooks: signed and encrypted, to registered URLs only, and never into a private network."""

from functools import partial

import msgspec
import orjson
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwe, jws
from joserfc.jwk import RSAKey

from hub.model.caller import Caller
from hub.model.clock import FixedClock
from hub.model.fault import Fault
from hub.model.records import Delivery
from hub.protocol.jose import PublicKey
from hub.state.memory import MemoryKeeper
from hub.upstream.address import destination_of, is_public, resolve
from hub.upstream.webhook import Webhooks, consent_message, wants_webhook
from tests.lfi.desk import NOW, consent, settings
from tests.upstream.scripted import BEARER, OK, Identity, answering, bank
from tests.waiting import pause_of_a_peer

ENC = rsa.generate_private_key(public_exponent=65537, key_size=2048)
DELIVERY = Delivery(
    index=1, target="webhook", consent_id="c1", operation="patch", time_ms=NOW * 1000
)


class Trust:
    def __init__(self, *urls):
        self.urls = urls

    def caller(self, client_id):
        return Caller(
            client_id=client_id,
            organisation_id="o",
            software_statement_id="s",
            tpp_id="t",
            tpp_name="n",
            roles=(),
            redirect_uris=(),
            webhook_uris=self.urls,
        )

    def encryption_key(self, _client_id):
        return PublicKey(kid="e", use="enc", key=ENC.public_key())


def subscribed(url, *, active=True):
    body = {
        **consent().body,
        "Subscription": {"Webhook": {"Url": url, "IsActive": active}},
    }
    return msgspec.structs.replace(consent(), body=body)


def webhooks(tmp_path, trust, environment="sandbox"):
    made = settings(tmp_path)
    tenant = msgspec.structs.replace(made.tenant, environment=environment)
    framework = msgspec.structs.replace(made.trust, ca=tmp_path / "ca.pem")
    made = msgspec.structs.replace(made, tenant=tenant, trust=framework)
    clock = FixedClock(NOW)
    keeper = MemoryKeeper(clock=clock)
    return Webhooks(settings=made, trust=trust, signing_key=BEARER, clock=clock, keeper=keeper)


async def test_a_webhook_is_signed_then_encrypted_for_its_client(tmp_path):
    got = []

    async def script(line):
        got.append(await line.request())
        await line.say(OK.replace(b"200 OK", b"202 Accepted"))

    identity = Identity(tmp_path)
    async with bank(script, tmp_path, identity=identity) as (peer, _):
        url = f"https://localhost:{peer.port}/hooks/of?x=1"
        peer.script = script
        sender = webhooks(tmp_path, Trust(url))
        sender._context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
        assert await sender.send(subscribed(url), DELIVERY) == 202
    head, _, body = got[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /hooks/of?x=1 HTTP/1.1")
    assert b"content-type: application/jwe" in head
    opened = jwe.decrypt_compact(
        body, RSAKey.import_key(ENC), algorithms=["RSA-OAEP-256", "A256GCM"]
    )
    assert opened.headers()["cty"] == "JWT"
    token = jws.deserialize_compact(
        opened.plaintext, RSAKey.import_key(BEARER.key.public_key()), algorithms=["PS256"]
    )
    claims = orjson.loads(token.payload)
    assert claims["iss"] == "https://as.example"
    assert claims["nbf"] <= NOW < claims["exp"]
    assert claims["message"]["Meta"] == {
        "EventDateTime": "2026-06-01T08:00:00Z",
        "EventResource": "/account-access-consents/c1",
        "EventType": "Resource.Updated",
        "ConsentId": "c1",
    }
    assert claims["message"]["Data"]["Status"] == "AwaitingAuthorization"


async def test_only_registered_urls_are_called(tmp_path):
    Identity(tmp_path)
    sender = webhooks(tmp_path, Trust("https://tpp.example/hook"))
    for url in ("https://tpp.example/hook2", "https://tpp.example/hook/", "https://evil.example/"):
        fault = await sender.send(subscribed(url), DELIVERY)
        assert fault.check == "webhook.unregistered"


async def test_in_production_a_private_network_is_not_called_though_registered(tmp_path):
    identity = Identity(tmp_path)
    async with bank(answering(OK), tmp_path, identity=identity) as (peer, _):
        url = f"https://localhost:{peer.port}/"
        sender = webhooks(tmp_path, Trust(url), "production")
        fault = await sender.send(subscribed(url), DELIVERY)
        assert fault.check == "outbound.private"
        assert peer.connections == 0


def test_only_an_active_subscription_wants_to_be_told():
    assert wants_webhook(subscribed("https://x"))
    assert not wants_webhook(subscribed("https://x", active=False))
    assert not wants_webhook(consent())


def test_a_message_hides_what_is_the_customers():
    secret = msgspec.structs.replace(
        consent(), body={"Data": {"PersonalIdentifiableInformation": "jwe", "ConsentId": "c1"}}
    )
    message = consent_message(secret, "post", NOW * 1000, NOW * 1000)
    assert "PersonalIdentifiableInformation" not in message["Data"]
    assert message["Meta"]["EventType"] == "Resource.Created"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.9.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1",
        "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "fe80::1",
        "fe80::1%eth0", "fd00::1", "ff02::1", "2001:db8::1", "64:ff9b::7f00:1", "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:f5ff:fffe", "localhost", "",
        "::127.0.0.1", "::10.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b:1::7f00:1", "fec0::1", "5f00::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_of_the_public_internet(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_addresses_of_the_public_internet(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://tpp.example/", "ftp://tpp.example/", "file:///etc/passwd", "gopher://x/",
        "https://", "https:///x", "https://user@tpp.example/", "https://u:p@tpp.example/",
        "https://tpp.example:22/", "https://tpp.example:25/", "https://tpp.example:99999/",
        "https://tpp.example:x/", "https://tpp.example/#f", "https://tpp.example/ x",
        "https://tpp.example/\r\nhost: y", "https://tpp.example\\@evil/", "https://t%70p/",
        "https://tpp.éxample/", "HTTPS:tpp", "//tpp.example/", "https://" + "a" * 3000,
    ],
)  # fmt: skip
def test_urls_that_are_never_called(url):
    assert isinstance(destination_of(url), Fault)


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost."])
async def test_a_loopback_in_disguise_resolves_to_a_refusal(host):
    destination = destination_of(f"https://{host}/")
    found = (
        destination
        if isinstance(destination, Fault)
        else await resolve(destination, private_allowed=False)
    )
    assert isinstance(found, Fault)
    assert found.check in {"outbound.private", "outbound.name"}


async def test_one_private_address_among_public_ones_is_enough_to_refuse(monkeypatch):
    async def two(*_args, **_kwargs):
        return [(2, 1, 6, "", ("1.1.1.1", 443)), (2, 1, 6, "", ("10.0.0.1", 443))]

    monkeypatch.setattr(trio.socket, "getaddrinfo", two)
    destination = destination_of("https://tpp.example/")
    assert (await resolve(destination, private_allowed=False)).check == "outbound.private"
    assert await resolve(destination, private_allowed=True) == "1.1.1.1"


REDIRECT = b"HTTP/1.1 302 Found\r\nlocation: https://localhost:%d/\r\ncontent-length: 0\r\n\r\n"


async def drip(line):
    await line.request()
    await line.say(b"HTTP/1.1 202 Accepted\r\nx: ")
    while True:
        await line.say(b"x")
        await pause_of_a_peer(1)


def says(raw):
    async def script(line):
        await line.request()
        await line.say(raw)

    return script


HOSTILE = {
    "endless": says(b"HTTP/1.1 202 Accepted\r\ncontent-length: 10000000\r\n\r\n" + b"x" * 200_000),
    "long head": says(b"HTTP/1.1 202 Accepted\r\nx: " + b"y" * 200_000 + b"\r\n\r\n"),
    "nonsense": says(b"\x00" * 100),
    "says nothing": says(b""),
    "drips": drip,
}


@pytest.fixture
async def hostile(tmp_path):
    """Serve a script at an address that is registered; return how to send there, and the peer."""
    identity = Identity(tmp_path)
    async with bank(says(b""), tmp_path, identity=identity) as (peer, _):
        url = f"https://localhost:{peer.port}/hook"
        sender = webhooks(tmp_path, Trust(url))
        sender._context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
        yield peer, sender, subscribed(url)


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_receiver_costs_one_bounded_attempt(name, hostile, mock_clock):
    peer, sender, consent_ = hostile
    peer.script = HOSTILE[name]
    mock_clock.rate = 50
    fault = await sender.send(consent_, DELIVERY)
    assert isinstance(fault, Fault)
    assert fault.check == "webhook.unreachable"
    assert peer.connections == 1


async def test_a_redirect_is_an_answer_and_is_never_followed(hostile):
    peer, sender, consent_ = hostile
    trapped = []

    async def trap(stream):
        trapped.append(stream)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), trap, 0)
        inside = listener.socket.getsockname()[1]
        peer.script = says(REDIRECT % inside)
        assert await sender.send(consent_, DELIVERY) == 302
        nursery.cancel_scope.cancel()
    assert trapped == []


async def test_a_name_is_resolved_once_and_what_was_judged_is_connected_to(hostile, monkeypatch):
    """DNS rebinding: a second look-up would answer with another address; there is none."""
    peer, sender, consent_ = hostile
    peer.script = says(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")
    answers = ["127.0.0.1", "169.254.169.254"]

    async def changing(host, port, **_more):
        assert host == "localhost"
        return [(2, 1, 6, "", (answers.pop(0), port))]

    monkeypatch.setattr(trio.socket, "getaddrinfo", changing)
    assert await sender.send(consent_, DELIVERY) == 202
    assert answers == ["169.254.169.254"]
