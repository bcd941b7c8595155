"""The log's read-only face: the names of the format and nothing else."""

import pytest

from hub.audit.face import resource_at


@pytest.fixture
def folder(tmp_path):
    for name in (
        "checkpoint",
        "tile/0/000",
        "tile/0/001.p/7",
        "tile/entries/x001/x234/067",
        "tile/63/000.p/255",
        "secret",
        "tile/0/000.new",
        "tile/0/0001",
        "tile/64/000",
        "tile/0/002.p/256",
        "tile/0/002.p/07",
    ):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return tmp_path


@pytest.mark.parametrize(
    "path",
    ["tile/0/000", "tile/0/001.p/7", "tile/entries/x001/x234/067", "tile/63/000.p/255"],
)
def test_tiles_are_served_for_ever(folder, path):
    found = resource_at(folder, path)
    assert found.body == path.encode()
    assert found.content_type == "application/octet-stream"
    assert "immutable" in found.cache_control


def test_the_checkpoint_is_served_as_text_for_a_moment(folder):
    found = resource_at(folder, "checkpoint")
    assert (found.content_type, found.cache_control) == ("text/plain; charset=utf-8", "max-age=1")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "secret",
        "/checkpoint",
        "checkpoint\n",
        "tile/0/000\n",
        "tile/0/000.new",
        "tile/0/0001",
        "tile/64/000",
        "tile/0/002.p/256",
        "tile/0/002.p/07",
        "tile/0/../../secret",
        "tile/entries/../../secret",
        "tile/0/003",
        "tile/0/000/000",
        "tile/0/\u0660\u0660\u0660",
        "tile/0",
    ],
)
def test_nothing_else_exists(folder, path):
    assert resource_at(folder, path) is None
