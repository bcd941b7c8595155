"""Outside programs of Python in environments of their own, installed once from a lock file; cached in ``.venv``."""

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def interpreter(name: str) -> str:
    """Return the Python of the environment of ``tests/outside/requirements-NAME.lock``; a failure to install is one."""
    lock = ROOT / f"tests/outside/requirements-{name}.lock"
    folder = ROOT / ".venv" / name
    python, done = str(folder / "bin/python"), folder / "installed.txt"
    wanted = f"{sys.version}\n{lock.read_text()}"
    if not done.is_file() or done.read_text() != wanted:
        venv.create(folder, with_pip=False, symlinks=True, clear=True)
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
        how = ["--disable-pip-version-check", "--require-hashes", "--no-deps", "-r", str(lock)]
        subprocess.run([*pip, *how], check=True, timeout=300)
        done.write_text(wanted)
    return python
