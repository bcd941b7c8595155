"""The load generator against the running sandbox: real consents, real proofs, every answer good."""

import json
import subprocess
import sys

import pytest

from tests.wire.world import ROOT

pytestmark = pytest.mark.wire


def load(sandbox, *options: str) -> dict:
    command = [sys.executable, "-m", "bench.load", "--sandbox", str(sandbox.folder), "--json"]
    command += ["--duration", "0.5", "--warmup", "0.1", "--connections", "2", "--streams", "2"]
    run = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize(
    "options",
    [
        ("--mix", "balances"),
        ("--mix", "balances-dpop"),
        ("--mix", "balances", "--http1"),
        ("--mix", "token", "--processes", "2"),
        ("--mix", "discovery", "--rate", "100"),
    ],
)
def test_every_answer_under_load_is_good(sandbox, options):
    result = load(sandbox, *options)
    assert result["good"] == result["answered"] > 10
    assert not result["failed_connections"]
