"""The configuration: one clear error for each mistake, an origin for each value, two environments that differ by a list."""

import json
import shutil
import tomllib
from pathlib import Path

import pytest

from hub.config import ConfigError, config_folder, default_limits, load

PRODUCTION = config_folder() / "hub.production.toml"
PRE_PRODUCTION = config_folder() / "hub.pre-production.toml"

MAY_DIFFER = {
    "tenant.issuer",
    "tenant.resource_base",
    "tenant.environment",
    "tpp.certificate",
    "tpp.key",
    "tpp.client_ca",
    "tpp.hosts",
    "lfi.certificate",
    "lfi.key",
    "lfi.client_ca",
    "lfi.base",
    "lfi.hosts",
    "keys.signing",
    "keys.bearer",
    "keys.log",
    "bank.base_url",
    "bank.authorization_endpoint",
    "bank.ca",
    "bank.certificate",
    "bank.key",
    "trust.participants",
    "trust.keystore",
    "trust.api",
    "trust.token_endpoint",
    "trust.ca",
    "trust.certificate",
    "trust.key",
    "trust.crl",
    "trust.ocsp",
    "state.folder",
}


def flat(path: Path) -> dict[str, object]:
    table = tomllib.loads(path.read_text())
    top = {name: value for name, value in table.items() if not isinstance(value, dict)}
    return top | {
        f"{section}.{name}": value
        for section, values in table.items()
        if isinstance(values, dict)
        for name, value in values.items()
    }


def changed(tmp_path: Path, old: str, new: str) -> Path:
    target = tmp_path / "hub.toml"
    text = PRODUCTION.read_text()
    assert old in text
    target.write_text(text.replace(old, new))
    return target


def test_the_shipped_examples_load():
    for path in (PRODUCTION, PRE_PRODUCTION):
        assert load(path, {}).settings.tenant.provider_id == "examplebank"


def test_pre_production_and_production_differ_only_in_certificates_and_addresses():
    left, right = flat(PRODUCTION), flat(PRE_PRODUCTION)
    assert set(left) == set(right)
    assert {name for name in left if left[name] != right[name]} == MAY_DIFFER


def test_a_value_remembers_where_it_came_from():
    loaded = load(PRODUCTION, {"HUB__LIMITS__STREAMS": "7", "HUB__WORKERS": "3"})
    assert loaded.settings.limits.streams == 7
    assert loaded.settings.workers == 3
    assert loaded.origins["limits.streams"] == "environment HUB__LIMITS__STREAMS"
    assert loaded.origins["limits.resets"] == "config/limits.toml"
    assert loaded.origins["tenant.issuer"] == str(PRODUCTION)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('provider_id = "examplebank"', "", "provider_id"),
        ("port = 443", 'port = "https"', "port"),
        ('profile = "uae"', 'profile = "eu"', "profile"),
        ('profile = "uae"', 'profil = "uae"', "profil"),
        ("port = 443", "port = 8443", "different ports"),
        (
            "ozone-connect.examplebank.example",
            "ozone-connect.examplebank.example/",
            "bank.base_url",
        ),
        ('"https://ozone-connect', '"http://ozone-connect', "bank.base_url"),
        ("example/open-finance", "example/open-finance?a=b", "authorization_endpoint"),
        ("example/open-finance", "example/open-finance/", "authorization_endpoint"),
        ('"https://app.', '"app.', "authorization_endpoint"),
        ('"https://app.', '"https://user@app.', "authorization_endpoint"),
        ('"https://data.directory', '"http://data.directory', "trust.participants"),
        (
            '"https://keystore.directory.example"',
            '"https://keystore.directory.example/"',
            "trust.keystore",
        ),
        ('"http://crl.', '"ftp://crl.', "trust.crl"),
        ("[state]", "[state", "TOML"),
        ("workers = 2", "workers = 0", "workers"),
        ("crl =", "auto_activate = true\ncrl =", "auto_activate"),
        ('key = "production/s1.key"', "key = 5", "path of a file or folder"),
        ('key = "production/s1.key"', 'key = ""', "tpp.key"),
        ('folder = "/var/lib/api-hub/examplebank"', "folder = []", "state.folder"),
        ('"https://hh.', '"http://hh.', "lfi.base"),
        ('["5f0c1f0e-2f6f-4a56-8a3a-54d2e6f9b7c1"]', "[]", "client_ids"),
        ('provider_id = "examplebank"', 'provider_id = "a\\r\\nb"', "provider_id"),
        ('provider_id = "examplebank"', 'provider_id = ""', "provider_id"),
        ('audience = "examplebank"', "", "bank.audience"),
        ('auth = "jwt"', 'auth = "api_key"', "bank.api_key"),
        ('auth = "jwt"', 'auth = "oauth"', "bank.client_secret"),
        ('auth = "jwt"', 'auth = "jwt"\ntoken_endpoint = "x"', "bank.token_endpoint"),
        ("crl =", "refresh = 0\ncrl =", "trust.refresh"),
        ("crl =", "refresh = -1\ncrl =", "trust.refresh"),
        ("crl =", "outage_pay = 14401\ncrl =", "trust.outage_pay"),
        ("crl =", 'statement_keys = "x"\ncrl =', "trust.statement_keys"),
        ("port = 9090", 'port = 9090\ncertificate = "a.pem"', "ops.certificate"),
        ("port = 9090", "port = 65536", "ops.port"),
        ("retain = {}", "retain = { cal = 5 }", "log.retain"),
        ('hosts = ["auth1.', 'hosts = ["auth2.', "tpp.hosts: expected auth1.examplebank"),
        (', "rs1.examplebank', ', "rs2.examplebank', "the host of tenant.resource_base"),
        ('hosts = ["hh.', 'hosts = ["hg.', "lfi.hosts: expected hh.examplebank"),
        ('auth = "jwt"', 'auth = "jwt"\nbase_paths = { accounts = "/x" }', "bank.base_paths"),
        ('auth = "jwt"', 'auth = "jwt"\nbase_paths = { products = "/x/" }', "bank.base_paths"),
        ("retain = {}", "retain = { call = 0 }", "log.retain"),
        ("[state]", "[limits]\nstreams = 0\n[state]", "limits.streams"),
        ("[state]", "[limits]\ncode_s = 61\n[state]", "limits.code_s"),
        ("[state]", "[limits]\nrequest_uri_s = 9\n[state]", "limits.request_uri_s"),
        ("[state]", "[limits]\naccess_token_s = 601\n[state]", "limits.access_token_s"),
        ("[state]", "[limits]\nassertion_s = 301\n[state]", "limits.assertion_s"),
        ("[state]", "[limits]\nrequest_object_s = 601\n[state]", "limits.request_object_s"),
        ("[state]", "[limits]\nclock_ahead_s = 61\n[state]", "limits.clock_ahead_s"),
        ("[state]", "[limits]\nclock_ahead_s = 9\n[state]", "limits.clock_ahead_s"),
        ("[state]", "[limits]\ninteraction_s = 7201\n[state]", "limits.interaction_s"),
        ("[state]", "[limits]\nframe_octets = 16383\n[state]", "limits.frame_octets"),
        ("[state]", "[switches]\njarm = true\n[state]", "switches.jarm"),
        ("[state]", "[switches]\ntls_client_auth = true\n[state]", "switches.tls_client_auth"),
        ("[state]", "[switches]\npayee_yes = 0.5\n[state]", "switches.payee_partial"),
        ("[state]", "[switches]\npayee_yes = 1.01\n[state]", "switches.payee_yes"),
        ("workers = 2", "workers = 2\nlimits = 5", "limits"),
        ('"https://ozone-connect.examplebank.example"', '"https://a:b"', "bank.base_url"),
        ('"https://ozone-connect.examplebank.example"', '"https://a:65536"', "bank.base_url"),
        ('"https://ozone-connect.examplebank.example"', '"https://é.example"', "bank.base_url"),
    ],
)
def test_a_mistake_gets_one_line_that_names_it(tmp_path, old, new, named):
    with pytest.raises(ConfigError) as caught:
        load(changed(tmp_path, old, new), {})
    assert named in str(caught.value)
    assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize("seconds", ["0", "1201"])
def test_key_sets_are_kept_for_twenty_minutes_at_most(seconds):
    assert (
        load(PRODUCTION, {"HUB__TRUST__KEYS_REFRESH": "1200"}).settings.trust.keys_refresh == 1200
    )
    with pytest.raises(ConfigError, match="keys_refresh"):
        load(PRODUCTION, {"HUB__TRUST__KEYS_REFRESH": seconds})


def test_the_general_profile_has_no_bounds_of_the_uae(tmp_path):
    target = changed(tmp_path, 'profile = "uae"', 'profile = "general"')
    given = {f"HUB__LIMITS__{name}_S": "3600" for name in ("ACCESS_TOKEN", "REQUEST_OBJECT")}
    assert load(target, given).settings.limits.access_token_s == 3600


def test_a_missing_or_unreadable_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "none.toml", {})
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path, {})


def test_an_unknown_section_in_the_environment_is_an_error():
    with pytest.raises(ConfigError, match="HUB__NOPE__X"):
        load(PRODUCTION, {"HUB__NOPE__X": "1"})


def test_paths_are_relative_to_the_file(tmp_path):
    shutil.copy(PRODUCTION, tmp_path / "hub.toml")
    assert load(tmp_path / "hub.toml", {}).settings.lfi.key == tmp_path / "production/s3.key"


def test_every_limit_says_its_unit_reason_and_precedent():
    table = tomllib.loads((config_folder() / "limits.toml").read_text())
    assert all(set(row) == {"value", "unit", "reason", "precedent"} for row in table.values())
    assert set(table) == set(default_limits())


def test_both_endpoints_of_a_bank_are_named_in_one_error(tmp_path):
    target = changed(tmp_path, "ozone-connect.examplebank.example", "ozone-connect.example/api")
    target.write_text(target.read_text().replace("example/open-finance", "example/page?x=1"))
    with pytest.raises(ConfigError) as caught:
        load(target, {})
    said = str(caught.value)
    assert "bank.base_url: expected" in said
    assert "bank.authorization_endpoint: expected" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "url",
    [
        "https://",
        "https:///path",
        "https://a b",
        "https://a\n",
        "http://a",
        "https://a/",
        "https://a?",
        "https://a#",
    ],
)
def test_an_issuer_is_an_origin_and_nothing_more(tmp_path, url):
    old = 'issuer = "https://auth1.examplebank.apihub.example"'
    target = changed(tmp_path, old, f"issuer = {json.dumps(url)}")
    with pytest.raises(ConfigError, match=r"tenant\.issuer"):
        load(target, {})


@pytest.mark.parametrize("name", sorted(default_limits()))
def test_no_limit_is_negative_or_endless(name):
    variable = f"HUB__LIMITS__{name.upper()}"
    for value in ("-1", "nan" if isinstance(default_limits()[name], float) else "1e300"):
        with pytest.raises(ConfigError, match=rf"^environment {variable}: .*\.{name}`"):
            load(PRODUCTION, {variable: value})


def test_what_is_wrong_in_the_environment_is_blamed_on_its_variable():
    with pytest.raises(ConfigError, match=r"^environment HUB__TRUST__REFRESH: "):
        load(PRODUCTION, {"HUB__TRUST__REFRESH": "0"})
    with pytest.raises(ConfigError, match=r"^environment HUB__TRUST__REFRSH: .*unknown field"):
        load(PRODUCTION, {"HUB__TRUST__REFRSH": "5"})
    with pytest.raises(ConfigError, match=f"^{PRODUCTION}: .*retain"):
        load(PRODUCTION, {"HUB__LOG__RETAIN": "{ x = 5 }"})
