"""The report of the last run: ``bench/report.html`` with tables, and pictures where matplotlib is there (extra ``bench``)."""

import html
import json
import sys
from pathlib import Path
from typing import Any

from bench.evidence import EVIDENCE, ROOT
from bench.lanes import lane_parts

REPORT = ROOT / "bench" / "report.html"
PLOTS = ROOT / "bench"
TARGETS = {
    ("balances 32x10", "nginx"): 2.0,
    ("balances 32x10", "node"): 0.67,
    ("payments 32x10", "node"): 0.67,
}
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }
table { border-collapse: collapse; margin: 1rem 0; } th, td { border: 1px solid #d0d7de; padding: .3rem .6rem; }
td { text-align: right; } td:first-child, th { text-align: left; } th { background: #f6f8fa; }
.no { color: #a40e26; } .yes { color: #116329; } img { max-width: 100%; }
"""
Result = dict[str, Any]


def last_of(history: Path, section: str) -> Result:
    """Return the newest run that has a section; a full run goes before a quick one."""
    runs = [json.loads(line) for line in history.read_text().splitlines()]
    having = [run for run in runs if section in run]
    full = [run for run in having if not run["quick"]]
    return (full or having or [{}])[-1]


def table(head: list[str], rows: list[list[object]]) -> str:
    """Return an HTML table; cells that begin with ``<`` are HTML already."""

    def cell(value: object) -> str:
        text = str(value)
        return text if text.startswith("<") else html.escape(text)

    lines = ["<table><tr>", *(f"<th>{html.escape(name)}</th>" for name in head), "</tr>"]
    for row in rows:
        lines += ["<tr>", *(f"<td>{cell(value)}</td>" for value in row), "</tr>"]
    return "".join([*lines, "</table>"])


def verdict(job: str, peer: str, ratio: float) -> str:
    """Return how a ratio stands to its target, as HTML; empty where there is none."""
    target = TARGETS.get((job, peer))
    if target is None:
        return ""
    holds = ratio <= target
    word = "holds" if holds else "does not hold"
    return f'<span class="{"yes" if holds else "no"}">target {target}: {word}</span>'


def _span(values: list[float]) -> str:
    return f"{values[0]:g} to {values[1]:g}" if values else ""


def peers_part(run: Result) -> str:
    """Return the tables of the comparison."""
    parts = ["<h2>Compared with others</h2>", _by(run)]
    head = ["server", "CPU us per answer", "spread", "answers/s", "p50 ms", "p99 ms", "memory MB"]
    for job, results in run["peers"].items():
        rows = [
            [name, r["cpu_us"], _span(r["cpu_us_spread"]), r["per_second"], r["p50_ms"], r["p99_ms"], r["rss_mb"],
             r["hub_ratio"], _span(r["hub_ratio_spread"]), verdict(job, name, r["hub_ratio"])]
            for name, r in results.items()
        ]  # fmt: skip
        parts += [f"<h3>{html.escape(job)}</h3>"]
        parts += [table([*head, "Hub / it", "spread", ""], rows)]
    return "".join(parts)


def wire_part(run: Result) -> str:
    """Return the table of operations."""
    names = ("per_second", "cpu_us", "p50_ms", "p99_ms", "p99.9_ms")
    rows = [[job, *(r[n] for n in names)] for job, r in run["wire"].items()]
    head = ["operation", "answers/s", "CPU us", "p50 ms", "p99 ms", "p99.9 ms"]
    return "<h2>Each operation of the Hub</h2>" + _by(run) + table(head, rows)


def plain_part(title: str, section: str, run: Result) -> str:
    """Return a table of names and values."""
    rows: list[list[object]] = [[name, value] for name, value in run[section].items()]
    return f"<h2>{html.escape(title)}</h2>" + _by(run) + table(["", ""], rows)


def curves_part(run: Result) -> str:
    """Return the tables of the curves."""
    parts = ["<h2>How the cost grows</h2>", _by(run)]
    for name, rows in run["curves"].items():
        if name == "idle":
            parts.append(f"<p>An idle connection takes {rows['octets_each']} octets.</p>")
            continue
        if name == "consents_growth":
            parts.append(f"<p>With the most consents a read costs {100 * rows:.1f} % more.</p>")
            continue
        heads = list(next(iter(rows.values())))
        parts.append(table([name, *heads], [[k, *(v[h] for h in heads)] for k, v in rows.items()]))
    return "".join(parts)


def _by(run: Result) -> str:
    text = f"{run['at']}, commit {run['commit']}, {run['machine']}, the {run.get('build', 'pure')} Hub; {run['rounds']} rounds of {run['seconds']} s"
    return f"<p><small>{html.escape(text)}</small></p>"


def write_report(history: Path, evidence: Path = EVIDENCE, report: Path = REPORT) -> Path:
    """Write the report of the newest results in a history and in the evidence of lanes; return its path."""
    makers = {
        "peers": peers_part,
        "wire": wire_part,
        "latency": lambda run: plain_part("Added latency, one request in flight", "latency", run),
        "workers": lambda run: plain_part("One worker and two", "workers", run),
        "curves": curves_part,
        "consents": lambda run: plain_part(
            "A read with few and with many stored consents, CPU microseconds", "consents", run
        ),
        "micro": lambda run: plain_part("Each stage alone, CPU microseconds", "micro", run),
    }
    parts = []
    for section, make in makers.items():
        run = last_of(history, section)
        if not run:
            continue
        parts.append(make(run))
        parts += [f'<p><img src="{name}" alt="{name}"></p>' for name in plots(section, run)]
    for title, by, head_row, rows in lane_parts(evidence):
        parts.append(f"<h2>{html.escape(title)}</h2>{by}{table(head_row, rows)}")
    head = (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Benchmarks of the API Hub</title>"
    )
    intro = (
        "<h1>Benchmarks of the API Hub</h1><p>CPU is user and system time of all the server's processes per answer, "
        "the server on one core, load and bank on the other. Peers are measured in interleaved rounds; ratios are "
        "medians of the per-round ratios. nginx and HAProxy check nothing but the client's certificate chain; the Node "
        "gateway makes the Hub's checks but keeps no durable audit.</p>"
    )
    report.write_text(f"{head}<style>{STYLE}</style>{intro}{''.join(parts)}</html>\n")
    return report


def plots(section: str, run: Result) -> list[str]:
    """Draw the pictures of a section; return their names, none without matplotlib."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - optional
    except ImportError:
        return []
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    drawn = []
    for name, title, bars in _pictures(section, run):
        figure, axes = plt.subplots(figsize=(8, 0.45 * len(bars) + 1.2))
        axes.barh([label for label, _ in reversed(bars)], [value for _, value in reversed(bars)])
        axes.set_title(title)
        figure.tight_layout()
        figure.savefig(PLOTS / name, dpi=110)
        plt.close(figure)
        drawn.append(name)
    return drawn


def _pictures(section: str, run: Result) -> list[tuple[str, str, list[tuple[str, float]]]]:
    if section == "peers":
        return [
            (f"peers-{job.replace(' ', '-')}.png", f"{job}: CPU microseconds per answer",
             [(name, r["cpu_us"]) for name, r in results.items()])
            for job, results in run["peers"].items()
        ]  # fmt: skip
    if section == "wire":
        bars = [(job, r["cpu_us"]) for job, r in run["wire"].items()]
        return [("wire.png", "CPU microseconds per answer", bars)]
    if section == "micro":
        bars = [(name, value) for name, value in run["micro"].items() if value < 500]
        return [("micro.png", "Each stage alone, CPU microseconds", bars)]
    if section == "curves":
        return [
            (f"curve-{name}.png", f"CPU microseconds per answer, by {name}",
             [(key, row["cpu_us"]) for key, row in run["curves"][name].items()])
            for name in ("connections", "size")
        ]  # fmt: skip
    return []


if __name__ == "__main__":
    from bench.run import HISTORY

    sys.stdout.write(f"{write_report(HISTORY)}\n")
