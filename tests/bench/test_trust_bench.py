"""What the Trust Framework may cost: a tenth of a verification per request, and no wait for others while it refreshes."""

import pytest

from bench import evidence
from bench.trust import judgement, refresh


def test_a_warm_judgement_costs_at_most_a_tenth_of_an_es256_verification():
    figures = judgement()
    assert figures["judge_us"] * 10 <= figures["es256_us"], figures


async def test_a_refresh_of_a_large_list_leaves_others_alone(tmp_path):
    figures = await refresh(tmp_path, organisations=3_000, clients=20, rounds=1, pairs=1)
    assert figures["keys"] == 60
    # Short form: how late others are depends on what else the machine does (the nightly lane holds that bound), but
    # not for how long a single turn computes: reading such a list here would be one of thirty milliseconds and more.
    assert figures["longest_turn_ms"] < 20, figures
    assert figures["memory_rise_mb"] < 100, figures


@pytest.mark.nightly
async def test_ten_thousand_organisations_with_thirty_thousand_keys_raise_the_p99_by_less_than_ten_milliseconds(
    tmp_path,
):
    counts = {"organisations": 10_000, "clients": 10_000}
    figures = await refresh(tmp_path, **counts) | judgement()
    evidence.append("trust-refresh", counts, [], figures)
    assert figures["keys"] == 30_000, figures
    assert figures["rise_ms"] < 10, figures
    assert figures["longest_turn_ms"] < 20, figures
    assert figures["loading_turn_ms"] < 100, figures
    assert figures["memory_mb"] < 600, figures
