"""The sandboxes of this folder's tests, each in processes of its own: the UAE's profile, and the general one."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wire.world import ROOT, Actor, Sandbox, actor, free_base


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Start a sandbox and end it after the last test."""
    world = Sandbox(tmp_path_factory.mktemp("wire") / "sandbox", free_base())
    world.start()
    yield world
    assert world.stop() == 0


@pytest.fixture
async def tpp(sandbox: Sandbox) -> Iterator[Actor]:
    """Let the first TPP act."""
    async with actor(sandbox) as acting:
        yield acting


@pytest.fixture
async def other_tpp(sandbox: Sandbox) -> Iterator[Actor]:
    """Let the second TPP act."""
    async with actor(sandbox, 1) as acting:
        yield acting


@pytest.fixture(scope="session")
def general_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Start a tenant of the general profile, with two gateway workers, and end it after the last test."""
    folder = tmp_path_factory.mktemp("general") / "sandbox"
    world = Sandbox(folder, free_base(), "--profile", "general", "--workers", "2")
    world.start()
    yield world
    assert world.stop() == 0


@pytest.fixture
async def general_tpp(general_sandbox: Sandbox) -> Iterator[Actor]:
    """Let the first TPP act at the general tenant."""
    async with actor(general_sandbox) as acting:
        yield acting


@pytest.fixture
async def other_general_tpp(general_sandbox: Sandbox) -> Iterator[Actor]:
    """Let the second TPP act at the general tenant."""
    async with actor(general_sandbox, 1) as acting:
        yield acting


@pytest.fixture(scope="session")
def node_clients() -> Path:
    """Install the locked npm packages of the outside clients once, beside their scripts; return the folder."""
    source = ROOT / "tests/outside/node"
    folder = ROOT / ".venv/outside-node"
    lock, done = source / "package-lock.json", folder / "node_modules/.installed"
    folder.mkdir(exist_ok=True)
    for path in source.iterdir():
        if path.suffix in {".json", ".mjs"}:
            shutil.copyfile(path, folder / path.name)
    if not done.is_file() or done.read_bytes() != lock.read_bytes():
        npm = [str(ROOT / ".venv/bin/npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        path = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"
        subprocess.run(npm, cwd=folder, env={**os.environ, "PATH": path}, check=True, timeout=180)
        done.write_bytes(lock.read_bytes())
    return folder
