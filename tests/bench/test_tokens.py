"""Tokens per core, against the published figure of a well-known server."""

import pytest

from bench.evidence import append
from bench.tokens import KEYCLOAK_PER_VCPU, throughput
from tests.wire.world import free_base


@pytest.mark.nightly
def test_a_core_gives_out_more_tokens_than_keycloaks_guide_says(tmp_path):
    told = throughput(tmp_path / "sandbox", free_base(), seconds=5)
    append("tokens_per_core", {"seconds": 5}, [], told)
    for name in ("client_credentials", "refresh"):
        assert set(told[name]["statuses"]) == {"200"}
        assert told[name]["per_cpu_second"] > KEYCLOAK_PER_VCPU
