"""The wheel alone is enough: built from this tree, installed into an empty environment, it runs the whole journey."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bench.evidence import STAMP
from tests.wire.world import free_base

pytestmark = pytest.mark.wire

ROOT = Path(__file__).parents[2]
IS_COPY = (ROOT / STAMP).is_file()
UV = str(Path(sys.executable).with_name("uv"))


def run(*command: str, cwd: Path, seconds: int = 180) -> str:
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "HUB__", "VIRTUAL"))
    }
    # Compiling takes minutes: a compiled copy has done it already, and a checkout's wheel is of Python only here.
    clean["HUB_COMPILE"] = "1" if IS_COPY else "0"
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


def test_the_wheel_is_compiled_where_it_is_made_of_a_compiled_copy(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    of_all = wheel.name.endswith("-py3-none-any.whl")
    assert of_all != IS_COPY
    assert [n.partition(".")[0] for n in names if n.startswith("hub/protocol/h2.")] == [
        "hub/protocol/h2"
    ] * (1 + IS_COPY)


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
    code = "import hub.protocol.h2; print(hub.protocol.h2.__file__)"
    loaded = run(python, "-c", code, cwd=tmp_path).strip()
    assert Path(loaded).is_relative_to(venv)
    assert loaded.endswith(".so" if IS_COPY else ".py")
