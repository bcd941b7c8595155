"""The part of the report that comes from lanes of their own: what they appended to ``bench/evidence.jsonl`` last.

tokens per core             python -m bench.tokens --evidence
from a revocation to its effect   pytest -m nightly tests/wire/test_revocation_race.py
a million consents          pytest -m nightly tests/wire/test_many_consents.py
a large Trust Framework     pytest -m nightly tests/bench/test_trust_bench.py
"""

import html
import json
from pathlib import Path
from typing import Any

from bench.evidence import EVIDENCE

Record = dict[str, Any]
Rows = list[list[object]]
GRANTS = ("client_credentials", "refresh")
_PUBLISHED = "the published figure of Keycloak's sizing guide (client credentials, per vCPU)"


def newest(path: Path) -> dict[str, Record]:
    """Return the last record of each lane; those made on changed files count only where there is no other."""
    found: dict[str, Record] = {}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        held = found.get(record["lane"])
        if held is None or held["commit"].endswith("+") or not record["commit"].endswith("+"):
            found[record["lane"]] = record
    return found


def tokens(record: Record) -> tuple[list[str], Rows]:
    """Return the table of tokens per core; every assertion is PS256 and fresh."""
    told = record["result"]
    rows: Rows = [
        [name, told[name]["per_cpu_second"], told[name]["per_second"], told[name]["p50_ms"], told[name]["p99_ms"]]
        for name in GRANTS
    ]  # fmt: skip
    rows.append([_PUBLISHED, told["keycloak_client_credentials_per_vcpu_second"], "", "", ""])
    return ["grant", "per second of CPU", "per second", "p50 ms", "p99 ms"], rows


def revocations(record: Record) -> tuple[list[str], Rows]:
    """Return the table of revocations under load."""
    told, counts = record["result"], record["counts"]
    rows: Rows = [
        [name, *(told[key][at] for at in ("p50", "p99", "max"))]
        for name, key in (
            ("from call to effect (the last request that passed)", "call_to_effect_ms"),
            ("from call to acknowledgement", "call_to_acknowledgement_ms"),
        )
    ]
    rows.append(
        [f"passed after the acknowledgement, of {counts['requests']}", "", "", told["late"]]
    )
    return [
        f"{counts['trials']} revocations, {counts['workers']} workers",
        "p50 ms",
        "p99 ms",
        "max",
    ], rows


def consents(record: Record) -> tuple[list[str], Rows]:
    """Return the table of a store with many consents."""
    names = {
        "start": "the store opens",
        "hub_ready": "a Hub is ready",
        "cold_p50": "cold lookup, p50",
        "cold_p99": "cold lookup, p99",
        "warm": "warm lookup",
    }
    rows: Rows = [
        [names.get(name, name.replace("_", " ")), f"{value:.4g}"]
        for name, value in record["result"].items()
    ]
    return [f"{record['counts']['consents']:,} consents", "ms"], rows


def framework(record: Record) -> tuple[list[str], Rows]:
    """Return the table of the refresh of a large Trust Framework beside requests in flight."""
    names = {
        "rise_ms": "p99 of requests in flight rises by, ms",
        "list_rise_ms": "while the list of organisations is read, ms",
        "keys_rise_ms": "while every client is looked at, ms",
        "longest_turn_ms": "longest turn of a task, ms of CPU",
        "first_s": "first look at everything, s",
        "list_s": "a look when only the list has changed, s",
        "memory_mb": "memory of the process, MB",
        "memory_rise_mb": "of which a refresh added, MB",
        "judge_us": "a warm judgement, us",
        "es256_us": "one ES256 verification, us",
    }
    told = record["result"]
    rows: Rows = [[text, f"{told[name]:.4g}"] for name, text in names.items() if name in told]
    counts = record["counts"]
    return [f"{counts['organisations']:,} organisations, {3 * counts['clients']:,} keys", ""], rows


PARTS = {
    "tokens_per_core": ("Tokens per core", tokens),
    "revocation under load": ("Revocations", revocations),
    "a million consents": ("A million consents", consents),
    "trust-refresh": ("The Trust Framework", framework),
}


def lane_parts(path: Path = EVIDENCE) -> list[tuple[str, str, list[str], Rows]]:
    """Return for each lane that was run: title, what was measured when and where, head and rows of its table."""
    found = newest(path) if path.exists() else {}
    return [
        (title, _by(found[lane]), *make(found[lane]))
        for lane, (title, make) in PARTS.items()
        if lane in found
    ]


def _by(record: Record) -> str:
    text = f"{record['at']}, commit {record['commit']}, {record['machine']}"
    return f"<p><small>{html.escape(text)}</small></p>"
