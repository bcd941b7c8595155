"""A TPP whose certificate and keys were made elsewhere takes part beside ours."""

import datetime as dt
from pathlib import Path

import httpx
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from joserfc.jwk import RSAKey

from hub.model.clock import SeededDice
from hub.node.wall import SystemDice
from hub.sandbox.clock import SharedClock
from hub.sandbox.manifest import TppSection
from hub.sandbox.tpp import Discovery, Identity, Pushed, Tpp, Wire, data_sharing_consent
from hub.sandbox.tpp.consent import DATA_SHARING_SCOPE
from tests.wire.world import Sandbox, free_base

pytestmark = pytest.mark.wire
ORGANISATION = SeededDice("own organisation").uuid()
CLIENT = SeededDice("own client").uuid()
REDIRECT = "https://tpp.example/callback"


def self_signed(folder: Path, client_id: str, name: str) -> TppSection:
    """Make a self-signed certificate, a signing key and its key set, as somebody outside might."""
    transport = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "AE"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Own TPP LLC"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, client_id),
        ]
    )
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(transport.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(transport, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(pem))
    (folder / f"{name}.key").write_bytes(
        transport.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    signing = RSAKey.generate_key(2048, {"kid": f"{name}-1", "use": "sig", "alg": "PS256"})
    (folder / f"{name}-sig.key").write_bytes(signing.as_pem(private=True))
    keys = {"keys": [signing.as_dict(private=False)]}
    (folder / f"{name}.jwks").write_bytes(msgspec.json.encode(keys))
    return TppSection(
        name="Own TPP",
        client_id=client_id,
        organisation_id=ORGANISATION,
        roles=["BDSP"],
        redirect_uris=[REDIRECT],
        transport_cert=str(folder / f"{name}.pem"),
        transport_key=str(folder / f"{name}.key"),
        signing_key=str(folder / f"{name}-sig.key"),
        signing_kid=f"{name}-1",
        encryption_key="",
        encryption_kid="",
    )


async def test_your_own_tpp_registers_and_pushes_and_a_strangers_certificate_does_not(tmp_path):
    own = self_signed(tmp_path, CLIENT, "own")
    stranger = self_signed(tmp_path, SeededDice("stranger").uuid(), "stranger")
    options = ("--tpp-cert", own.transport_cert, "--tpp-jwks", str(tmp_path / "own.jwks"))
    world = Sandbox(tmp_path / "s", free_base(), *options, "--tpp-redirect-uri", REDIRECT)
    world.start()
    clock = SharedClock.open(world.folder / "run/clock")
    try:
        manifest = world.manifest
        assert REDIRECT in manifest.tpps[0].redirect_uris
        identity = Identity.read(own, world.folder, manifest.ca_bundle, clock, SystemDice())
        async with Wire.of(identity) as wire:
            tpp = Tpp(identity, wire)
            discovery = await tpp.discover(manifest.hub.issuer)
            assert isinstance(discovery, Discovery)
            assert await tpp.register(manifest.hub.registration) is None
            detail = data_sharing_consent(
                consent_id=identity.dice.uuid(), expires=clock.now() + 900
            )
            pushed = await tpp.push(discovery, detail, DATA_SHARING_SCOPE)
            assert isinstance(pushed, Pushed), pushed
        unknown = Identity.read(stranger, world.folder, manifest.ca_bundle, clock, SystemDice())
        async with Wire.of(unknown) as wire:
            with pytest.raises(httpx.HTTPError):
                await Tpp(unknown, wire).register(manifest.hub.registration)
    finally:
        clock.close()
        assert world.stop() == 0
