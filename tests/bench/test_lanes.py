"""What lanes of their own measured stands in the report."""

import json

from bench.evidence import append
from bench.lanes import newest
from bench.report import write_report
from bench.tokens import KEYCLOAK_PER_VCPU

GRANT = {"per_cpu_second": 2380.5, "per_second": 901.0, "p50_ms": 7.5, "p99_ms": 21.0}
SPANS = {"p50": 3.25, "p99": 9.0, "max": 12.75}


def test_the_report_shows_tokens_per_core_beside_the_published_figure(tmp_path):
    evidence, history = tmp_path / "evidence.jsonl", tmp_path / "history.jsonl"
    told = {
        "client_credentials": GRANT,
        "refresh": GRANT | {"per_cpu_second": 1818.0},
        "keycloak_client_credentials_per_vcpu_second": KEYCLOAK_PER_VCPU,
    }
    append("tokens_per_core", {"seconds": 5}, [], told, path=evidence)
    race = {"late": 0, "call_to_effect_ms": SPANS, "call_to_acknowledgement_ms": SPANS}
    counts = {"trials": 1000, "workers": 2, "connections": 8, "requests": 54321}
    append("revocation under load", counts, [], race, path=evidence)
    found = {"start": 31.5, "cold_p50": 0.1, "cold_p99": 0.3, "warm": 0.0009, "list_due": 2.0}
    append("a million consents", {"consents": 1_000_000}, [1], found, path=evidence)
    figures = {"rise_ms": 3.75, "longest_turn_ms": 2.5, "memory_mb": 311}
    counts = {"organisations": 10_000, "clients": 10_000}
    append("trust-refresh", counts, [], figures, path=evidence)
    history.write_text("")
    page = write_report(history, evidence, tmp_path / "report.html").read_text()
    for cell in ("2380.5", "1818.0", "120", "12.75", "0.0009", "3.75", "311"):
        assert f"<td>{cell}</td>" in page
    assert "sizing guide" in page
    assert "1000 revocations, 2 workers" in page
    assert "10,000 organisations, 30,000 keys" in page


def test_a_record_of_a_clean_commit_goes_before_one_of_changed_files(tmp_path):
    path = tmp_path / "evidence.jsonl"
    records = [("a", 1), ("a+", 2), ("b", 3), ("b+", 4)]
    lines = [json.dumps({"lane": "x", "commit": commit, "at": at}) for commit, at in records]
    path.write_text("\n".join(lines))
    assert newest(path)["x"]["at"] == 3
