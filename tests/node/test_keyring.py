"""A new key is published before it signs; an old one stays published after its last signature."""

import msgspec
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from hub.authz.metadata import key_set
from hub.model.clock import FixedClock
from hub.node.errors import StartError
from hub.node.keyring import NAME, keyring, settled, signer
from hub.protocol import jose
from tests.authz.desk import NOW, settings

WAIT, OVERLAP = 1200, 86_400


def key(kid):
    return jose.PrivateKey(kid=kid, key=ec.generate_private_key(ec.SECP256R1()))


OLD, NEW, NEWER = key("old"), key("new"), key("newer")


@pytest.fixture
def tenant(tmp_path):
    given = settings(limits={"signing_key_wait_s": WAIT, "signing_key_overlap_s": OVERLAP})
    state = msgspec.structs.replace(given.state, folder=tmp_path)
    return msgspec.structs.replace(given, state=state)


def kids(keys):
    return {one["kid"] for one in key_set((*keys, *keys.retired))["keys"]}


def test_the_defaults_outlast_every_cache_of_our_key_set():
    limits = settings().limits
    assert limits.signing_key_wait_s >= 1200
    assert limits.signing_key_overlap_s >= limits.access_token_s


def test_a_tenants_first_key_signs_at_once(tenant):
    keys = keyring([NEW, OLD], tenant, FixedClock(NOW))
    assert keys[0] is NEW
    assert len(keys) == 2
    assert kids(keys) == {"new", "old"}


def test_a_new_key_is_published_at_once_and_signs_after_the_wait(tenant):
    clock = FixedClock(NOW)
    assert keyring([OLD], tenant, clock)[0] is OLD
    clock.advance(1000)
    keys = keyring([NEW, OLD], tenant, clock)
    assert kids(keys) == {"new", "old"}
    assert [one.kid for one in keys] == ["old", "new"]
    clock.advance(WAIT - 1)
    assert keys[0] is OLD
    clock.advance(1)
    assert [one.kid for one in keys] == ["new", "old"]
    assert keys[0:1] == (NEW,)


def test_a_restart_does_not_begin_the_wait_anew(tenant):
    clock = FixedClock(NOW)
    keyring([OLD], tenant, clock)
    keyring([NEW, OLD], tenant, clock)
    clock.advance(WAIT)
    assert keyring([NEW, OLD], tenant, clock)[0] is NEW


def test_a_key_that_left_stays_published_for_the_overlap(tenant):
    clock = FixedClock(NOW)
    keyring([OLD], tenant, clock)
    keyring([NEW, OLD], tenant, clock)
    clock.advance(WAIT)
    keys = keyring([NEW], tenant, clock)
    assert [one.kid for one in keys.retired] == ["old"]
    published = jose.load_key(key_set((*keys, *keys.retired))["keys"][1])
    assert published.kid == "old"
    token = jose.parse(jose.sign({"iss": "x"}, OLD, alg="ES256"))
    assert jose.verify(token, published, ("ES256",)) is None
    clock.advance(OVERLAP - 1)
    assert kids(keyring([NEW], tenant, clock)) == {"new", "old"}
    clock.advance(1)
    assert kids(keyring([NEW], tenant, clock)) == {"new"}


def test_the_only_key_signs_even_when_it_is_new(tenant):
    clock = FixedClock(NOW)
    keyring([OLD], tenant, clock)
    assert keyring([NEW], tenant, clock)[0] is NEW


def test_of_two_new_keys_the_older_one_signs_until_the_wait_is_over(tenant):
    clock = FixedClock(NOW)
    keyring([OLD], tenant, clock)
    keyring([NEW, OLD], tenant, clock)
    clock.advance(600)
    keys = keyring([NEWER, NEW], tenant, clock)
    assert keys[0] is NEW
    clock.advance(WAIT - 600)
    assert keys[0] is NEW
    clock.advance(600)
    assert keys[0] is NEWER


def test_a_key_that_comes_back_is_ours_again(tenant):
    clock = FixedClock(NOW)
    for held in ([OLD], [NEW], [NEW, OLD]):
        keys = keyring(held, tenant, clock)
    assert keys.retired == ()
    assert kids(keys) == {"new", "old"}


def test_what_is_remembered_is_public_and_for_the_owner_only(tenant):
    keyring([OLD], tenant, FixedClock(NOW))
    path = tenant.state.folder / NAME
    [row] = orjson.loads(path.read_bytes())
    assert "d" not in row["jwk"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert [found.name for found in tenant.state.folder.iterdir()] == [NAME]


@pytest.mark.parametrize("content", [b"", b"{}", b'[{"jwk": {}}]', b"\xff"])
def test_a_broken_memory_stops_the_start_and_says_what_to_do(tenant, content):
    (tenant.state.folder / NAME).write_bytes(content)
    with pytest.raises(StartError, match="remove it to publish anew"):
        keyring([OLD], tenant, FixedClock(NOW))


def test_settling_and_choosing_are_pure():
    known = settled([OLD], (), NOW, OVERLAP)
    known = settled([NEW, OLD], known, NOW, OVERLAP)
    assert signer([NEW, OLD], known, NOW + WAIT - 1, WAIT) is OLD
    assert signer([NEW, OLD], known, NOW + WAIT, WAIT) is NEW
