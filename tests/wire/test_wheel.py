"""The wheel alone is enough: built from this tree, installed into an empty environment, it runs the whole journey."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.wire.world import free_base

pytestmark = pytest.mark.wire

ROOT = Path(__file__).parents[2]
UV = str(Path(sys.executable).with_name("uv"))


def run(*command: str, cwd: Path, seconds: int = 180) -> str:
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "HUB__", "VIRTUAL"))
    }
    done = subprocess.run(
        command, cwd=cwd, env=clean, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_ships_the_configuration_and_nothing_of_the_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "hub/_config/limits.toml" in names
    assert any(name.startswith("hub/_config/contract/") for name in names)
    assert not [name for name in names if name.startswith(("tests", "bench"))]


def test_the_wheel_runs_the_journey_in_an_empty_environment(wheel, tmp_path):
    venv = tmp_path / "venv"
    run(UV, "venv", "--python", sys.executable, str(venv), cwd=tmp_path)
    python = str(venv / "bin" / "python")
    install = (UV, "pip", "install", "--quiet", "--python", python)
    lock = str(ROOT / "scripts" / "requirements.lock")
    run(*install, "--require-hashes", "--no-deps", "-r", lock, cwd=tmp_path)
    run(*install, "--no-deps", str(wheel), cwd=tmp_path)
    told = run(
        str(venv / "bin" / "hub"),
        "sandbox",
        "--dir",
        str(tmp_path / "world"),
        "--port-base",
        str(free_base()),
        "--exit-after-journey",
        cwd=tmp_path,
    )
    assert "Done:" in told
