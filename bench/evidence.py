"""What was run, and what it showed: one line per heavy run in ``bench/evidence.jsonl``.

A nightly lane appends its record at its end. Nobody edits the file: a figure that no longer holds is answered by a newer
line. Seeds are kept so that a run can be repeated.
"""

import fcntl
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
EVIDENCE = Path(os.environ.get("HUB_EVIDENCE", ROOT / "bench" / "evidence.jsonl"))
"""Of the checkout, also where a compiled copy of it is tested (``scripts/test``): the copy's own is overwritten."""
STAMP = ".compiled.json"
"""What lies in a compiled copy (``scripts/compiled.py``)."""


def machine() -> str:
    """Describe the machine in few words, without its name."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return (
        f"{os.cpu_count()} vCPU {platform.machine()}, {round(pages / 2**30)} GB, "
        f"{platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}"
    )


def commit() -> str:
    """Return the commit that is checked out, marked ``+`` where code or tests differ from it; ``unknown`` outside of git."""
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "hub", "config", "tests")
    return f"{head}+" if head and changed else head or "unknown"


def _git(*arguments: str) -> str:
    try:
        run = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""


def append(
    lane: str,
    counts: Mapping[str, int | float],
    seeds: Sequence[int],
    result: Any,
    *,
    path: Path = EVIDENCE,
) -> dict[str, Any]:
    """Append one record and return it.

    Args:
        lane: What was run: the name of the test or the command.
        counts: How much of what was done.
        seeds: Of the randomness; empty where there was none.
        result: What came out; anything that JSON can carry.
        path: The file; another one in tests.
    """
    record = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "build": "compiled" if (ROOT / STAMP).is_file() else "pure",
        "lane": lane,
        "counts": dict(counts),
        "seeds": list(seeds),
        "result": result,
    }
    append_line(path, record)
    return record


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append a record as one line, whole also when several processes append at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
