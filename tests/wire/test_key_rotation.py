"""A signing key is rotated while the Hub runs: published at once, in use after the wait, and the old one stays published."""

import json
import signal

import httpx
import pytest

from hub.node.keys import new_signing_key
from hub.sandbox.tls import client_context
from tests.wire.own_hub import OwnHub, settings_beside

pytestmark = pytest.mark.wire


def test_a_key_is_rotated_by_a_reload(sandbox, tmp_path):
    settings = settings_beside(sandbox, tmp_path / "state")
    context = client_context(sandbox.folder / sandbox.manifest.ca_bundle)
    hub = OwnHub(tmp_path / "hub", settings)
    hub.start()
    try:
        with httpx.Client(verify=context, trust_env=False) as client:

            def kids():
                answer = client.get(f"https://localhost:{hub.port}/jwks")
                assert answer.headers["cache-control"] == "public, max-age=900"
                return {key["kid"] for key in answer.json()["keys"]}

            def take(keys):
                settings["keys"]["signing"] = keys
                hub.write()
                hub.signal(signal.SIGHUP)

            [old] = kids()
            first = settings["keys"]["signing"][0]
            new = new_signing_key(tmp_path / "new.key", "PS256").kid
            take([str(tmp_path / "new.key"), first])
            hub.until(lambda: kids() == {old, new}, 30)
            known = json.loads((tmp_path / "state/signing_keys.json").read_bytes())
            since = {row["jwk"]["kid"]: row["published"] for row in known}
            assert since[old] == 0 < since[new]
            take([str(tmp_path / "new.key")])
            hub.until(lambda: len(hub.notes("configuration_taken")) == 2, 30)
            assert kids() == {old, new}, "whatever the old key signed can still be verified"
            take([str(tmp_path / "no-such.key")])
            hub.until(lambda: hub.notes("configuration_kept"), 30)
            assert kids() == {old, new}
    finally:
        hub.stop()
