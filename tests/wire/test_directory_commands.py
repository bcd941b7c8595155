"""``hub sandbox directory`` and ``hub directory``: the framework is changed, the tenant's record made and checked."""

import httpx
import msgspec
import pytest
from click.testing import CliRunner, Result

from hub.cli import main
from hub.sandbox.tls import client_context
from tests.wire.newcomer import do

pytestmark = pytest.mark.wire


def hub(*arguments: str) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def directory(sandbox):
    def run(*arguments: str) -> Result:
        return hub("sandbox", "directory", "--dir", str(sandbox.folder), *arguments)

    return run


def said(done: Result) -> dict[str, str]:
    assert done.exit_code == 0, done.stderr
    return dict(line.split(": ", 1) for line in done.stdout.splitlines())


def test_a_tpp_is_made_and_unmade_from_the_command_line(directory):
    organisation = said(directory("new-organisation", "Command Line LLC"))["organisation_id"]
    uri = "https://localhost/callback"
    client = said(directory("new-application", organisation, "App", "--redirect-uri", uri))
    made = said(directory("new-key", client["client_id"], "transport", "--expire-in", "3600"))
    assert directory("expire", made["kid"], "60").exit_code == 0
    for act in (
        ("down", "--site", "pki"),
        ("up",),
        ("suspend", client["client_id"]),
        ("withdraw", organisation),
    ):
        assert directory(*act).exit_code == 0
    listed = directory("list").stdout
    (row,) = [line for line in listed.splitlines() if organisation in line]
    assert "Withdrawn" in row
    (row,) = [line for line in listed.splitlines() if client["client_id"] in line]
    assert "Suspended" in row
    unknown = directory("revoke", "nothing")
    assert unknown.exit_code == 1
    assert len(unknown.stderr.splitlines()) == 1


async def test_the_framework_goes_down_for_its_clients_but_its_page_stays(sandbox):
    context = client_context(sandbox.folder / sandbox.manifest.ca_bundle)
    page = sandbox.manifest.directory.page
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        await do(sandbox, "down")
        try:
            with pytest.raises(httpx.TransportError):
                await client.get(sandbox.manifest.directory.participants)
            assert (await client.get(page)).status_code == 200
        finally:
            await do(sandbox, "up")
        assert (await client.get(sandbox.manifest.directory.participants)).status_code == 200


def test_the_sandboxs_own_participants_document_has_no_oddity(sandbox):
    ca = str(sandbox.folder / sandbox.manifest.ca_bundle)
    done = hub("directory", "lint", sandbox.manifest.directory.participants, "--ca", ca)
    assert (done.exit_code, done.stdout.strip()) == (0, "0 findings")


def test_the_record_is_made_from_the_configuration_and_passes_its_own_check(sandbox, tmp_path):
    configuration = str(sandbox.folder / "hub.toml")
    done = hub("directory", "record", "--config", configuration, "--name", "Model Bank")
    assert (done.exit_code, done.stderr) == (0, "")
    record = msgspec.json.decode(done.stdout)
    assert record["Issuer"] == sandbox.manifest.hub.issuer
    families = {r["ApiFamilyType"] for r in record["ApiResources"]}
    assert {"account-information", "payment", "confirmation"} <= families
    target = tmp_path / "record.json"
    record["ApiResources"][0]["ApiVersion"] = "1.0.0"
    target.write_bytes(msgspec.json.encode(record))
    wrong = hub("directory", "lint", str(target))
    assert wrong.exit_code == 1
    assert "version" in wrong.stdout


@pytest.mark.parametrize("source", ["http://localhost/x", "https://localhost:1/x", "absent.json"])
def test_what_cannot_be_had_is_one_line(source):
    done = hub("directory", "lint", source)
    assert done.exit_code == 4
    assert len(done.stderr.splitlines()) == 1
