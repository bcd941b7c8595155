"""testssl.sh on the TPP listener: protocols, suites, and nothing above LOW but the private CA."""

import json
import subprocess

import pytest
import trio

from bench.evidence import append
from hub.edge.tls import FAPI_CIPHERS
from tests.edge import rig
from tests.wire.own_hub import OwnHub, settings_beside

pytestmark = pytest.mark.nightly

GRAVE = {"MEDIUM", "HIGH", "CRITICAL", "FATAL"}
PRIVATE_CA = {"cert_chain_of_trust"}


def scanned(port, path, *what):
    """Run testssl.sh; return its findings by id."""
    done = subprocess.run(
        ["testssl", "--quiet", "--color", "0", "--warnings", "off", "--ip", "one", *what, "--jsonfile", path, f"localhost:{port}"],
        capture_output=True,
        text=True,
        timeout=400,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert path.exists(), done.stdout + done.stderr
    return json.loads(path.read_text())


def suites(findings, protocol):
    lines = [f["finding"] for f in findings if f["id"].startswith(f"cipher-{protocol}_")]
    return {line.split()[3] for line in lines}


def check_protocols(findings):
    by_id = {f["id"]: f["finding"] for f in findings}
    for old in ("SSLv2", "SSLv3", "TLS1", "TLS1_1"):
        assert by_id[old].startswith("not offered"), old
    for good in ("TLS1_2", "TLS1_3"):
        assert by_id[good].startswith("offered"), good


def test_nothing_above_low_but_the_private_ca(sandbox, tmp_path):
    hub = OwnHub(tmp_path / "hub", settings_beside(sandbox, tmp_path / "hub"))
    hub.start()
    try:
        findings = scanned(hub.port, tmp_path / "all.json")
        each = scanned(hub.port, tmp_path / "suites.json", "-p", "-E")
    finally:
        assert hub.stop() == 0
    check_protocols(findings)
    rsa = {name for name in FAPI_CIPHERS if "RSA" in name and "ECDSA" not in name}
    assert suites(each, "tls1_2") == rsa
    grave = [f for f in findings if f["severity"] in GRAVE and f["id"] not in PRIVATE_CA]
    append("testssl", {"findings": len(findings)}, (), {"grave": len(grave)})
    assert not grave, grave


async def test_with_an_elliptic_key_the_other_half_of_the_list_is_offered(tmp_path):
    async with rig.listening(rig.echo_router(), engine="lean") as place:
        each = await trio.to_thread.run_sync(
            lambda: scanned(place.port, tmp_path / "suites.json", "-p", "-E")
        )
    check_protocols(each)
    assert suites(each, "tls1_2") == {name for name in FAPI_CIPHERS if "ECDSA" in name}
