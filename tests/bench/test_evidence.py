"""The record of heavy runs."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import evidence


def test_a_run_leaves_one_line_that_says_what_was_run(tmp_path: Path):
    path = tmp_path / "evidence.jsonl"
    evidence.append("flood", {"requests": 10}, [7], {"alive": True}, path=path)
    record = json.loads(path.read_text())
    assert record["lane"] == "flood"
    assert record["counts"] == {"requests": 10}
    assert record["seeds"] == [7]
    assert record["result"] == {"alive": True}
    assert "vCPU" in record["machine"]
    assert record["commit"]
    assert record["build"] == ("compiled" if (evidence.ROOT / evidence.STAMP).is_file() else "pure")


def test_many_runs_at_once_each_leave_a_whole_line(tmp_path: Path):
    path = tmp_path / "evidence.jsonl"
    record = {"lane": "x" * 9000}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: evidence.append_line(path, record), range(64)))
    lines = path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [record] * 64
