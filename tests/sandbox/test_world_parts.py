"""The parts of the world: folder, ports, parties, configuration, enrolment, the Hub's process."""

import json
import socket
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from hub.config import load
from hub.model.clock import FixedClock, SeededDice
from hub.node.errors import StartError
from hub.protocol.jose import PrivateKey, public_jwk
from hub.sandbox.configuration import bank_address, configuration, write_configuration
from hub.sandbox.control import ControlError
from hub.sandbox.directory import Acts, Directory
from hub.sandbox.enrolment import enrol, redirect_uris, stranger
from hub.sandbox.folder import LOCK_NAME, owned_folder
from hub.sandbox.knobs import knob_actions
from hub.sandbox.manifest import SandboxOptions
from hub.sandbox.parties import BANK, OPERATOR, TPPS, Keyring, issue_keys, party
from hub.sandbox.pki import Pki
from hub.sandbox.places import Places, check_ports
from hub.sandbox.server import NO_FAULT, Faults
from hub.sandbox.tenant import UAE
from tests.wire.world import free_base

NOW = 1_790_000_000


@pytest.fixture(scope="module")
def clock():
    return FixedClock(NOW)


@pytest.fixture(scope="module")
def made(tmp_path_factory, clock) -> tuple[Places, Pki, Keyring]:
    places = Places(folder=tmp_path_factory.mktemp("world"), base=27100)
    pki = Pki.open(places.folder / "pki", clock, base=places.http(12))
    return places, pki, issue_keys(pki, places)


@pytest.fixture
def directory(made, clock, tmp_path):
    places, pki, _ = made
    return Directory.open(
        tmp_path,
        pki=pki,
        clock=clock,
        dice=SeededDice(),
        public_base=places.https(10),
        api_base=places.https(11),
        pki_base=places.http(12),
    )


def test_a_folder_belongs_to_one_sandbox_at_a_time(tmp_path):
    with (
        owned_folder(tmp_path / "s"),
        pytest.raises(StartError, match="another sandbox runs on this folder"),
        owned_folder(tmp_path / "s"),
    ):
        pytest.fail("owned twice")


def test_an_owned_folder_is_private_and_leaves_no_lock(tmp_path):
    with owned_folder(tmp_path / "s") as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert (folder / LOCK_NAME).exists()
    assert not (folder / LOCK_NAME).exists()
    with owned_folder(tmp_path / "s"):
        pass


def test_a_folder_that_cannot_be_made_is_one_line_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StartError, match=r"file/s: cannot be written \(.*\); choose another folder"),
        owned_folder(tmp_path / "file" / "s"),
    ):
        pytest.fail("owned")


def test_a_port_in_use_is_named_with_what_it_is_for(tmp_path):
    base = free_base()
    port = base + 10
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(StartError, match=rf"port {port} \(for the directory\) is in use"):
            check_ports(Places(folder=tmp_path, base=base))


def test_ids_of_parties_are_the_same_on_every_machine_and_version_4():
    again = party("tpp1", "Sample Budget FZ-LLC", ("BDSP", "BSIP", "IDSP"))
    assert again == TPPS[0]
    ids = {p.organisation_id for p in (BANK, OPERATOR, *TPPS)}
    assert len(ids) == 4
    assert all(i[14] == "4" and i[19] in "89ab" for i in ids)


def test_keys_are_made_once_and_private(made):
    places, pki, keys = made
    assert issue_keys(pki, places) == keys
    private = list(places.keys.rglob("*.key"))
    assert len(private) >= 18
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in private)


def test_written_configuration_is_one_that_the_hub_loads(made, tmp_path):
    places, pki, keys = made
    options = SandboxOptions(folder=places.folder, port_base=places.base, workers=2)
    bank = bank_address(options, places, UAE, pki.ca_bundle)
    write_configuration(
        configuration(options, places, UAE, keys, ca=pki.ca_bundle, bank=bank), UAE.hub_toml(places)
    )
    settings = load(UAE.hub_toml(places), {}).settings
    assert settings.tenant.environment == "sandbox"
    assert settings.tenant.issuer == "https://localhost:27100"
    assert settings.workers == 2
    assert settings.trust.auto_activate
    assert settings.lfi.client_ids == (BANK.client_id,)
    assert settings.keys.signing[0] == keys.tenants["bank"].hub.message_signing.key_path
    assert stat.S_IMODE(UAE.hub_toml(places).stat().st_mode) == 0o600


def test_your_own_bank_takes_the_place_of_the_model_bank(made, tmp_path):
    places, pki, keys = made
    ca = tmp_path / "own.pem"
    options = SandboxOptions(
        bank_url="https://bank.example:9443",
        bank_authorization_endpoint="https://app.bank.example/consent",
        bank_ca=ca,
    )
    bank = bank_address(options, places, UAE, pki.ca_bundle)
    path = tmp_path / "hub.toml"
    write_configuration(
        configuration(options, places, UAE, keys, ca=pki.ca_bundle, bank=bank), path
    )
    settings = load(path, {}).settings
    assert settings.bank.base_url == "https://bank.example:9443"
    assert settings.bank.authorization_endpoint == "https://app.bank.example/consent"
    assert settings.bank.ca == ca
    assert not settings.bank.dedupes_by_key


def test_directory_knows_everybody_with_roles_and_keys(made, directory):
    places, _, keys = made
    options = SandboxOptions(tpp_redirect_uris=("https://tpp.example/cb",))
    enrol(directory, keys, options, places)
    for index, tpp in enumerate(keys.tpps):
        application = directory.register.application(tpp.party.client_id)
        assert application.roles == ("BDSP", "BSIP", "IDSP")
        assert list(application.redirect_uris) == redirect_uris(options, places, index)
        assert "https://tpp.example/cb" in application.redirect_uris
        assert {k.kid for k in application.keys} == {
            tpp.transport.kid,
            tpp.signing.kid,
            tpp.encryption.kid,
        }
    bank = directory.register.organisation(BANK.organisation_id)
    assert keys.tenants["bank"].hub.message_signing.kid in {k.kid for k in bank.keys}
    assert next(iter(bank.servers.values())).issuer == places.https(0)


def test_enrolling_again_keeps_a_suspension(made, directory):
    places, _, keys = made
    enrol(directory, keys, SandboxOptions(), places)
    directory.suspend(TPPS[0].client_id)
    enrol(directory, keys, SandboxOptions(), places)
    assert directory.register.application(TPPS[0].client_id).status == "Suspended"


def test_your_own_tpp_is_enrolled_under_its_certificates_subject(made, directory, tmp_path):
    places, pki, keys = made
    issued = pki.issue(
        "C1",
        organisation_id=SeededDice("o").uuid(),
        organisation_name="Elsewhere LLC",
        client_id=SeededDice("c").uuid(),
        folder=tmp_path,
        name="own",
    )
    jwks = tmp_path / "own.jwks"
    own = PrivateKey(kid="k1", key=ec.generate_private_key(ec.SECP256R1()))
    jwks.write_text(json.dumps({"keys": [{**public_jwk(own), "use": "sig"}]}))
    enrol(directory, keys, SandboxOptions(tpp_cert=issued.cert_path, tpp_jwks=jwks), places)
    application = directory.register.application(SeededDice("c").uuid())
    assert application.organisation_id == SeededDice("o").uuid()
    assert [k.kid for k in application.keys] == ["k1"]


def test_your_own_tpp_needs_certificate_and_key_set_together(made, directory, tmp_path):
    places, _, keys = made
    options = SandboxOptions(tpp_cert=keys.tpps[0].transport.cert_path)
    with pytest.raises(StartError, match="belong together"):
        enrol(directory, keys, options, places)


def test_your_own_tpps_certificate_must_name_organisation_and_client(made, directory, tmp_path):
    places, _, keys = made
    jwks = tmp_path / "own.jwks"
    jwks.write_text('{"keys":[]}')
    options = SandboxOptions(tpp_cert=keys.directory.cert_path, tpp_jwks=jwks)
    with pytest.raises(StartError, match=r"expected a subject with O, OU"):
        enrol(directory, keys, options, places)


def test_the_hubs_process_refuses_a_configuration_that_is_not_a_sandboxs(made, tmp_path):
    places, pki, keys = made
    options = SandboxOptions(folder=places.folder, port_base=places.base)
    bank = bank_address(options, places, UAE, pki.ca_bundle)
    settings = configuration(options, places, UAE, keys, ca=pki.ca_bundle, bank=bank)
    settings["tenant"]["environment"] = "production"
    settings["trust"]["auto_activate"] = False
    path = tmp_path / "hub.toml"
    write_configuration(settings, path)
    status, told = _hub_process(path, tmp_path / "clock")
    assert status == 1
    assert "this process runs sandboxes only" in told


def _hub_process(path: Path, clock: Path) -> tuple[int, str]:
    """Run the process with its standard input held open, as the world does."""
    command = [sys.executable, "-m", "hub.sandbox.hub_process", str(path), str(clock)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        status = process.wait(timeout=20)
        assert process.stderr is not None
        return status, process.stderr.read()


def test_knobs_change_directory_and_bank(made, directory):
    places, _, keys = made
    enrol(directory, keys, SandboxOptions(), places)
    faults = Faults()
    actions = knob_actions(Acts(directory, {}), {"bank": faults})
    client = TPPS[0].client_id
    actions["directory"]({"act": "suspend", "client_id": client})
    assert directory.register.application(client).status == "Suspended"
    actions["directory"]({"act": "resume", "client_id": client})
    assert directory.register.application(client).status == "Active"
    actions["directory"](
        {"act": "drop_role", "organisation_id": TPPS[0].organisation_id, "role": "BSIP"}
    )
    assert directory.register.organisation(TPPS[0].organisation_id).roles == ("BDSP", "IDSP")
    actions["fault"]({"at": "bank", "plan": {"status": 500, "times": 2}})
    assert faults.plan.status == 500
    actions["fault"]({"at": "bank", "plan": None})
    assert faults.plan is NO_FAULT


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("directory", {"act": "delete"}),
        ("directory", {"act": "suspend"}),
        ("directory", {"act": "suspend", "client_id": "nobody"}),
        ("directory", {"act": "_keep"}),
        ("fault", {}),
        ("fault", {"at": "hub", "plan": None}),
        ("fault", {"at": "bank"}),
        ("fault", {"at": "bank", "plan": {"status": "soon"}}),
    ],
)
def test_knobs_refuse_what_they_do_not_know(made, directory, name, request_):
    with pytest.raises(ControlError):
        knob_actions(Acts(directory, {}), {"bank": Faults()})[name](request_)


def test_only_the_tpp_edge_trusts_your_own_tpps_certificate(made, tmp_path):
    places, pki, keys = made
    own = tmp_path / "own.pem"
    own.write_text("-----BEGIN CERTIFICATE-----\nown\n-----END CERTIFICATE-----\n")
    options = SandboxOptions(folder=places.folder, port_base=places.base, tpp_cert=own)
    bank = bank_address(options, places, UAE, pki.ca_bundle)
    settings = configuration(options, places, UAE, keys, ca=pki.ca_bundle, bank=bank)
    trusted = (places.folder / settings["tpp"]["client_ca"]).read_text()
    assert own.read_text() in trusted
    assert pki.ca_bundle.read_text() in trusted
    assert settings["lfi"]["client_ca"] == settings["trust"]["ca"] == "pki/ca.pem"


ORGANISATION, CLIENT = (
    "0b2b0a3e-9c1f-4d53-9a6e-6d1f6a0f1a01",
    "0b2b0a3e-9c1f-4d53-9a6e-6d1f6a0f1a02",
)


def of_a_stranger(tmp_path, unit, client, **members):
    """Write a certificate and a key set of one key as a fintech would bring them; return the options."""
    private = ec.generate_private_key(ec.SECP256R1())
    oids = (NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.COMMON_NAME)
    values = zip(oids, ("My Fintech", unit, client), strict=True)
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in values if value])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
    built = built.not_valid_before(now).not_valid_after(now + timedelta(days=30))
    made = built.public_key(private.public_key()).sign(private, SHA256())
    (tmp_path / "own.pem").write_bytes(made.public_bytes(Encoding.PEM))
    row = {**public_jwk(PrivateKey(kid="k", key=private)), "use": "sig", **members}
    (tmp_path / "own.jwks").write_text(json.dumps({"keys": [row]}))
    return SandboxOptions(tpp_cert=tmp_path / "own.pem", tpp_jwks=tmp_path / "own.jwks")


def test_your_own_tpp_is_known_by_its_certificates_subject(tmp_path):
    found = stranger(of_a_stranger(tmp_path, ORGANISATION, CLIENT))
    assert found[:3] == (ORGANISATION, CLIENT, "My Fintech")


@pytest.mark.parametrize(
    ("unit", "client", "members", "words"),
    [
        ("", CLIENT, {}, "OU"),
        ("org", CLIENT, {}, "UUIDs"),
        (ORGANISATION, "client", {}, "UUIDs"),
        (ORGANISATION, CLIENT, {"d": "AQAB"}, "a private one was given"),
        (ORGANISATION, CLIENT, {"use": "enc"}, '"use": "sig"'),
        (ORGANISATION, CLIENT, {"kty": "oct", "k": "c2VjcmV0"}, "a private one was given"),
    ],
)
def test_a_tpp_of_your_own_that_the_hub_could_not_take_is_refused_at_the_start(
    tmp_path, unit, client, members, words
):
    with pytest.raises(StartError, match=words):
        stranger(of_a_stranger(tmp_path, unit, client, **members))
