"""Tell a regression from noise: ``bench/compare [--baseline N]`` holds the last run against earlier ones.

What is compared are the ratios to the peers of the same run, and the stages alone; both bear a noisy machine far better
than rates do. A value is a regression where it lies above everything the earlier runs reached and its spread does not
touch theirs, and by more than ``--tolerance``. The exit status is 1 if there is any.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from bench.run import HISTORY

Span = tuple[float, float, float]
"""Median, least, largest."""


def values(run: dict[str, Any]) -> dict[str, Span]:
    """Return what of a run can be compared with another run."""
    found: dict[str, Span] = {}
    for job, results in run.get("peers", {}).items():
        for peer, row in results.items():
            if peer != "hub" and row["hub_ratio_spread"]:
                low, high = row["hub_ratio_spread"]
                found[f"{job}: Hub / {peer}"] = (row["hub_ratio"], low, high)
    for name, value in run.get("micro", {}).items():
        if "durable" not in name:  # the disk's doing
            found[f"micro: {name}"] = (value, value * 0.9, value * 1.1)
    return found


def judge(now: Span, before: list[Span], tolerance: float) -> str:
    """Return ``worse``, ``better`` or ``same``.

    Args:
        now: Of the last run.
        before: Of earlier runs.
        tolerance: The least change that counts, as a share.
    """
    least, most = min(low for _, low, _ in before), max(high for _, _, high in before)
    middle = sorted(mid for mid, _, _ in before)[len(before) // 2]
    if now[1] > most and now[0] > middle * (1 + tolerance):
        return "worse"
    if now[2] < least and now[0] < middle * (1 - tolerance):
        return "better"
    return "same"


def compare(
    runs: list[dict[str, Any]], baseline: int, tolerance: float
) -> list[tuple[str, str, Span, float]]:
    """Hold the last run against up to ``baseline`` earlier ones: verdict, name, its span, the earlier median."""
    *earlier, last = runs
    out = []
    for name, now in values(last).items():
        before = [values(run)[name] for run in earlier if name in values(run)][-baseline:]
        if before:
            middle = sorted(mid for mid, _, _ in before)[len(before) // 2]
            out.append((judge(now, before, tolerance), name, now, middle))
    return out


def build(run: dict[str, Any]) -> str:
    """Return which Hub a run measured; only the same are compared."""
    return str(run.get("build", "pure"))


def main(given: list[str] | None = None) -> int:
    """Compare and tell; return 1 where something got worse."""
    parser = argparse.ArgumentParser(prog="bench/compare", description=__doc__)
    parser.add_argument("--history", type=Path, default=HISTORY)
    parser.add_argument("--baseline", type=int, default=5, help="earlier runs to hold it against")
    parser.add_argument("--tolerance", type=float, default=0.1, help="least change that counts")
    parser.add_argument("--all", action="store_true", help="tell what stayed the same, too")
    arguments = parser.parse_args(given)
    runs = [json.loads(line) for line in arguments.history.read_text().splitlines()]
    runs = [run for run in runs if build(run) == build(runs[-1])]
    if len(runs) < 2:
        sys.stdout.write("There is nothing to compare with yet.\n")
        return 0
    found = compare(runs, arguments.baseline, arguments.tolerance)
    for verdict, name, now, middle in found:
        if arguments.all or verdict != "same":
            sys.stdout.write(
                f"{verdict:7} {name}: {now[0]:g} ({now[1]:g} to {now[2]:g}), was {middle:g}\n"
            )
    worse = sum(verdict == "worse" for verdict, *_ in found)
    sys.stdout.write(f"{len(found)} values compared, {worse} worse\n")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
