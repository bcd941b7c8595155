"""A log of many sizes, written by publication after publication."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub.audit.note import Signer
from hub.model.clock import FixedClock
from hub.state.memory import MemoryKeeper

ORIGIN = "hub.example/bank/log"


@pytest.fixture
def clock():
    return FixedClock(1_800_000_000)


@pytest.fixture
def keeper(clock):
    return MemoryKeeper(clock=clock)


@pytest.fixture(scope="session")
def signer():
    return Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(b"\x07" * 32))
