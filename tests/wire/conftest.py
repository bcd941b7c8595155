"""One sandbox for all tests of this folder, in processes of its own."""

from collections.abc import Iterator

import pytest

from tests.wire.world import Actor, Sandbox, actor, free_base


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
