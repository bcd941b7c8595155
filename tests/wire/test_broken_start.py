"""K5 of the catalogue: a Hub that cannot start says why in one line, soon, with a status that is not 0."""

import subprocess
import sys

import pytest

from tests.wire.own_hub import OwnHub, settings_beside
from tests.wire.world import ROOT

pytestmark = pytest.mark.wire


def no_database(hub):
    (hub.folder / "hub.db").write_bytes(b"this is no database" * 1000)


def no_toml(hub):
    hub.path.write_text("[tenant\n")


def unknown_setting(hub):
    hub.path.write_text(hub.path.read_text() + "\n[nonsense]\na = 1\n")


def no_certificate(hub):
    hub.settings["tpp"]["certificate"] = "/nowhere/tpp.pem"
    hub.write()


def key_of_another(hub):
    hub.settings["tpp"]["key"] = hub.settings["lfi"]["key"]
    hub.write()


BROKEN = [no_database, no_toml, unknown_setting, no_certificate, key_of_another]


@pytest.mark.parametrize("spoil", BROKEN, ids=lambda one: one.__name__)
def test_a_hub_that_cannot_start_says_why_in_one_line(sandbox, tmp_path, spoil):
    hub = OwnHub(tmp_path / "hub", settings_beside(sandbox, tmp_path / "hub"))
    spoil(hub)
    done = subprocess.run(
        [sys.executable, "-m", "hub", "serve", "--config", str(hub.path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode in {3, 4}, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("hub: ")
    assert "Traceback" not in done.stderr
