"""Files that a configuration names are checked before anything starts; a sandbox's never pass in production."""

import msgspec
import pytest

from hub.config import ConfigError, load
from hub.node.check import SANDBOX_MARK, check_files
from hub.node.keys import new_signing_key
from hub.sandbox import pki


@pytest.fixture(scope="module")
def settings(sandbox):
    return load(sandbox.folder / "hub.toml", {}).settings


pytestmark = pytest.mark.wire


def changed(settings, section, **values):
    table = msgspec.structs.replace(getattr(settings, section), **values)
    return msgspec.structs.replace(settings, **{section: table})


def test_the_files_of_a_running_sandbox_are_good(settings):
    check_files(settings)


@pytest.mark.parametrize("environment", ["production", "pre-production"])
def test_certificates_of_a_sandbox_are_refused_elsewhere(settings, environment):
    with pytest.raises(ConfigError, match="issued by a sandbox"):
        check_files(changed(settings, "tenant", environment=environment))


def test_a_key_that_does_not_fit_its_certificate_is_named(settings):
    with pytest.raises(ConfigError, match=r"lfi\.certificate"):
        check_files(changed(settings, "lfi", key=settings.tpp.key))


def test_a_bundle_that_is_no_certificate_is_named(settings, tmp_path):
    empty = tmp_path / "ca.pem"
    empty.write_text("nothing")
    with pytest.raises(ConfigError, match=r"bank\.ca"):
        check_files(changed(settings, "bank", ca=empty))


def test_a_signing_key_must_be_a_private_key(settings):
    with pytest.raises(ConfigError, match="private key"):
        check_files(changed(settings, "keys", bearer=settings.lfi.certificate))


def test_the_uae_profile_signs_with_rsa_keys(settings, tmp_path):
    path = tmp_path / "sig.key"
    new_signing_key(path, "ES256")
    for name, value in (("signing", (path,)), ("bearer", path)):
        found = changed(settings, "keys", **{name: value})
        with pytest.raises(ConfigError, match=r"sig\.key: signs with ES256; .* RSA"):
            check_files(found)
        check_files(changed(found, "tenant", profile="general"))


def test_an_unknown_time_zone_is_named(settings):
    with pytest.raises(ConfigError, match="time_zone"):
        check_files(changed(settings, "tenant", time_zone="Mars/Olympus"))


def test_the_sandbox_names_its_authorities_so():
    assert pki.UNIT == SANDBOX_MARK
