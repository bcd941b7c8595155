"""What only the machine can tell about a configuration: each bad file is one line, and what is good is good at the start too."""

import contextlib
import tomllib
from types import SimpleNamespace

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from hub.config import ConfigError, config_folder, load
from hub.node.build import answer_bearer, bank_of, watched_files
from hub.node.check import check_files
from hub.node.wall import SystemDice, WallClock
from hub.observe import Observer
from tests.node.test_keys import PASSWORD, RSA, certificate, pem

PRODUCTION = config_folder() / "hub.production.toml"


@pytest.fixture
def settings(tmp_path):
    """A production configuration whose files are all there."""
    target = tmp_path / "hub.toml"
    target.write_text(PRODUCTION.read_text())
    (tmp_path / "production").mkdir()
    written = certificate(RSA).public_bytes(serialization.Encoding.PEM)
    for section in tomllib.loads(PRODUCTION.read_text()).values():
        for value in section.values() if isinstance(section, dict) else ():
            if isinstance(value, str) and value.endswith(".pem"):
                (tmp_path / value).write_bytes(written)
            if isinstance(value, str) and value.endswith(".key"):
                (tmp_path / value).write_bytes(pem(RSA))
    (tmp_path / "production/sig2.key").write_bytes(pem(RSA))
    (tmp_path / "production/log.key").write_bytes(pem(ed25519.Ed25519PrivateKey.generate()))
    return load(target, {}).settings


def changed(settings, section, **values):
    table = msgspec.structs.replace(getattr(settings, section), **values)
    return msgspec.structs.replace(settings, **{section: table})


def test_a_configuration_whose_files_are_all_there_is_good(settings):
    check_files(settings)


def test_the_edge_for_tpps_is_not_opened_without_who_vouches_for_them(settings):
    with pytest.raises(ConfigError, match=r"tpp\.client_ca"):
        check_files(changed(settings, "tpp", client_ca=None))


@pytest.mark.parametrize(
    ("section", "name", "content"),
    [
        ("log", "ca", b"no PEM"),
        ("bank", "ca", b"no PEM"),
        ("bank", "api_key", b""),
        ("bank", "client_secret", None),
        ("trust", "push_key", b"short"),
    ],
)
def test_a_bad_file_is_named_with_its_setting(settings, tmp_path, section, name, content):
    path = tmp_path / "bad"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{section}\.{name}:? {path}: "):
        check_files(changed(settings, section, **{name: path}))


@pytest.mark.parametrize("line", ["x", "https://w.example", "https://w.example w.example+1+x"])
def test_a_witness_that_is_none_is_refused_before_the_start(settings, line):
    with pytest.raises(ConfigError, match=r"log\.witnesses: "):
        check_files(changed(settings, "log", witnesses=(line,)))


def test_a_version_that_was_not_laid_beside_ours_is_not_promised(settings):
    with pytest.raises(ConfigError, match=r"tenant\.beside: v9: expected versions .*: none is"):
        check_files(changed(settings, "tenant", beside=("v9",)))


def test_an_encrypted_key_of_a_listener_is_refused_and_no_terminal_is_asked(
    settings, tmp_path, capfd
):
    (tmp_path / "production/s1.key").write_bytes(pem(RSA, PASSWORD))
    with pytest.raises(ConfigError, match=r"tpp\.key"):
        check_files(settings)
    assert "pass phrase" not in "".join(capfd.readouterr()).lower()


def test_an_encrypted_bearer_key_that_is_good_is_good_at_the_start_too(settings, tmp_path):
    (tmp_path / "password").write_bytes(PASSWORD)
    (tmp_path / "production/sig3.key").write_bytes(pem(RSA, PASSWORD))
    locked = changed(settings, "keys", password=tmp_path / "password")
    check_files(locked)
    clock = WallClock()
    observer = Observer(clock)
    given = SimpleNamespace(settings=locked, clock=clock, dice=SystemDice(), observer=observer)
    with contextlib.closing(observer):
        assert answer_bearer(given) is not None
        assert bank_of(given) is not None


def test_a_tenant_whose_signing_keys_all_lie_in_a_token_has_certificates_to_watch(settings):
    watched = watched_files(changed(settings, "keys", signing=()))
    assert "message signing" not in watched
    assert "tpp edge" in watched
