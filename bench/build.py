"""Which Hub is measured: the compiled one where there is a compiler, else the one of Python only."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.evidence import ROOT, STAMP

COMPILED = ROOT / "build" / "compiled"
LIBRARY = "native__mypyc"
"""What every compiled module loads (``scripts/compiled.py``)."""


def home(*, pure: bool, say: Callable[[str], None]) -> Path:
    """Return the checkout whose Hub is to be measured: a compiled copy, made where it is not current, or this one.

    Args:
        pure: Ask for Python only.
        say: Takes progress.
    """
    if pure or (ROOT / STAMP).is_file():
        return ROOT
    say("the compiled Hub: two minutes where something changed since the last time")
    program = [sys.executable, str(ROOT / "scripts" / "compiled.py"), str(COMPILED)]
    done = subprocess.run(program, stderr=subprocess.PIPE, text=True, check=False)
    said = done.stderr.strip()
    if done.returncode == 0:
        return COMPILED
    if done.returncode == 3:
        say(f"{said}; the Hub of Python only is measured")
        return ROOT
    raise SystemExit(said)


def build_of(pids: Sequence[int]) -> str:
    """Return which Hub running processes are: ``compiled``, ``pure``, or ``unknown`` where they cannot be looked at."""
    try:
        mapped = [Path(f"/proc/{pid}/maps").read_text() for pid in pids]
    except OSError:
        return "unknown"
    if not mapped:
        return "unknown"
    return "compiled" if any(LIBRARY in text for text in mapped) else "pure"
