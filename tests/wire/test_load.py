"""The load generator against the running sandbox: real consents, real proofs, every answer good."""

import json
import subprocess
import sys

import pytest
import trio

from tests.wire.world import ROOT, moved

pytestmark = pytest.mark.wire


def load(sandbox, *options: str) -> dict:
    command = [sys.executable, "-m", "bench.load", "--sandbox", str(sandbox.folder), "--json"]
    command += ["--duration", "0.5", "--warmup", "0.1", "--connections", "2", "--streams", "2"]
    run = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


async def test_load_is_made_at_the_time_of_the_sandbox_whose_clock_was_moved(sandbox):
    async with moved(sandbox, 3600):
        result = await trio.to_thread.run_sync(lambda: load(sandbox, "--mix", "token"))
    assert result["good"] == result["answered"] > 10


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
