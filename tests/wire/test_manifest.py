"""``sandbox.json`` is a promise: these keys are there, in version 1, and what they name exists."""

import json
import stat

import httpx
import pytest

from hub.sandbox.tls import client_context

pytestmark = pytest.mark.wire

PROMISED = {
    "": {"version", "ca_bundle", "hub", "directory", "control", "bank", "tpps", "customers"},
    "hub": {
        "issuer", "discovery", "jwks", "registration", "par", "token", "resource_base",
        "heimdall_base", "consent_manager_base", "ops_base", "pids",
    },
    "directory": {"base", "participants", "keystore_base", "token_endpoint"},
    "bank": {
        "provider_id", "authorization_endpoint", "ozone_connect_base", "transport_cert",
        "transport_key", "signing_key", "signing_kid",
    },
    "tpps": {
        "name", "client_id", "organisation_id", "roles", "redirect_uris", "transport_cert",
        "transport_key", "signing_key", "signing_kid", "encryption_key", "encryption_kid",
    },
    "customers": {"name", "username", "password", "accounts"},
}  # fmt: skip


@pytest.fixture
def manifest(sandbox) -> dict:
    return json.loads((sandbox.folder / "sandbox.json").read_text())


def test_every_promised_key_is_there_in_version_1(manifest):
    assert manifest["version"] == 1
    assert manifest.keys() >= PROMISED[""]
    for section in ("hub", "directory", "bank"):
        assert manifest[section].keys() >= PROMISED[section], section
    for section in ("tpps", "customers"):
        for row in manifest[section]:
            assert row.keys() >= PROMISED[section], section


def test_the_world_holds_two_tpps_with_their_roles_and_four_customers_or_more(manifest):
    assert [tpp["roles"] for tpp in manifest["tpps"]] == [["BDSP", "BSIP", "IDSP"]] * 2
    assert len({tpp["organisation_id"] for tpp in manifest["tpps"]}) == 2
    assert len(manifest["customers"]) >= 4
    assert all(customer["accounts"] for customer in manifest["customers"])


def test_every_path_is_relative_and_exists_and_keys_are_private(sandbox, manifest):
    rows = [manifest["bank"], *manifest["tpps"]]
    paths = [row[name] for row in rows for name in row if name.endswith(("_cert", "_key"))]
    assert len(paths) >= 11
    for path in [manifest["ca_bundle"], manifest["control"], *paths]:
        assert not path.startswith("/")
        assert (sandbox.folder / path).exists(), path
    private = [path for path in paths if path.endswith(".key")]
    assert private
    for path in [*private, "sandbox.json", "hub.toml"]:
        assert stat.S_IMODE((sandbox.folder / path).stat().st_mode) == 0o600, path


async def test_every_address_answers(sandbox, manifest):
    context = client_context(sandbox.folder / manifest["ca_bundle"])
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        for url in (
            manifest["hub"]["discovery"],
            manifest["hub"]["jwks"],
            manifest["hub"]["ops_base"] + "/readyz",
            manifest["directory"]["participants"],
            manifest["bank"]["ozone_connect_base"] + "/hello",
        ):
            assert (await client.get(url)).status_code == 200, url
        metadata = (await client.get(manifest["hub"]["discovery"])).json()
        assert metadata["issuer"] == manifest["hub"]["issuer"]
        assert metadata["jwks_uri"] == manifest["hub"]["jwks"]
        assert metadata["token_endpoint"] == manifest["hub"]["token"]
        assert metadata["authorization_endpoint"] == manifest["bank"]["authorization_endpoint"]
        for tpp in manifest["tpps"]:
            keys = f"{manifest['directory']['keystore_base']}/{tpp['organisation_id']}"
            url = f"{keys}/{tpp['client_id']}/application.jwks"
            kids = {key["kid"] for key in (await client.get(url)).json()["keys"]}
            assert {tpp["signing_kid"], tpp["encryption_kid"]} <= kids


async def test_the_worlds_certificates_name_localhost_and_its_address(sandbox, manifest):
    context = client_context(sandbox.folder / manifest["ca_bundle"])
    port = sandbox.base
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        for host in ("localhost", "127.0.0.1"):
            url = f"https://{host}:{port}/.well-known/openid-configuration"
            assert (await client.get(url)).status_code == 200
