"""The parsers under fuzz: some seconds each time (a minute in scripts/test), an hour at night; and proof that the fuzzer finds what is planted."""

import base64
import os
import random

import pytest

from bench.evidence import append
from hub.authz import request_checks
from hub.protocol import dpop
from hub.protocol.jose import jws
from tests.fuzz import parsers
from tests.fuzz.parsers import run

SECONDS = 3
"""``scripts/test`` runs a minute beside its other checks."""
HOUR_S = 3600


def test_nothing_is_found_in_some_seconds():
    seed = random.SystemRandom().randrange(1 << 40)
    found = run(SECONDS, seed)
    assert found.wrong == [], f"seed {seed}"
    assert sum(found.tried.values()) > 1000
    assert len(found.tried) == 9


@pytest.mark.nightly
def test_nothing_is_found_in_an_hour():
    seed = int(os.environ.get("FUZZ_SEED", random.SystemRandom().randrange(1 << 40)))
    found = run(HOUR_S, seed)
    counts = {"inputs": sum(found.tried.values()), "seconds": HOUR_S}
    append("fuzz_parsers", counts, [seed], {"findings": len(found.wrong)})
    assert found.wrong == []


def lenient(text):
    raw = text.encode() if isinstance(text, str) else text
    try:
        return base64.urlsafe_b64decode(raw + b"=" * (-len(raw) % 4))
    except ValueError:
        return None


PLANTED = [
    (jws, "decode_b64url", lenient, "a second spelling"),
    (parsers.jose, "verify", lambda *_: None, "forged signature"),
    (dpop, "normal_url", lambda url: url.strip(), "of something else"),
    (request_checks, "_JARM_MODES", frozenset(), "unhashable"),
    (parsers, "parse_scope", lambda value: 1 / (len(value) - 6), "ZeroDivisionError"),
]


@pytest.fixture
def forgetful():
    """Have nothing remembered that was read with a mistake planted, nor found before it was."""
    memories = (jws._header_before, dpop._key_before)
    for memory in memories:
        memory.cache_clear()
    yield
    for memory in memories:
        memory.cache_clear()


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize(("place", "name", "planted", "why"), PLANTED)
def test_a_planted_mistake_is_found(monkeypatch, place, name, planted, why):
    monkeypatch.setattr(place, name, planted)
    wrong = []
    for seed in range(1, 21):
        wrong += run(1.5, seed).wrong
        if any(why in line for line in wrong):
            return
    pytest.fail(f"not found: {wrong}")
