"""``hub specs``: our contract beside the official documents."""

import shutil
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from hub.cli import main
from hub.config import config_folder
from hub.contract import Context, load_contract
from hub.contract.contract import used_specs
from hub.contract.specs import (
    check_specs,
    diff_specs,
    lay_down,
    list_specs,
    listed_differences,
    use_specs,
)

OURS = config_folder() / "contract"
pytestmark = pytest.mark.specs


def test_our_documents_are_listed():
    found = {spec.name: spec for spec in list_specs(OURS)}
    assert found["account-information"].version == "v2.1-errata2"
    assert found["account-information"].base == "/open-finance/account-information/v2.1"
    assert found["data-sharing"].sites > 20


def test_every_difference_from_the_official_documents_is_listed_with_its_reason(specs):
    differences = check_specs(OURS, specs)
    assert [d.text for d in differences if not d.listed] == []
    assert {d.text for d in differences} == listed_differences(OURS)


def test_a_difference_is_named_by_operation_and_member(specs, tmp_path):
    ours = shutil.copytree(OURS, tmp_path / "contract")
    path = ours / "schemas/account-information.yaml"
    path.write_text(
        path.read_text().replace("BeneficiaryId!: str 1..40", "BeneficiaryId: str 1..40")
    )
    found = [d for d in check_specs(ours, specs) if not d.listed]
    where = "account-information GET /accounts/{AccountId}/beneficiaries 200"
    assert found
    assert all(d.where.startswith(where) for d in found)


def test_a_folder_without_our_documents_is_said_to_be_one(tmp_path):
    with pytest.raises(ValueError, match="none of our documents"):
        check_specs(OURS, tmp_path)
    with pytest.raises(ValueError, match="none of our documents"):
        use_specs(OURS, tmp_path, tmp_path / "out")


def test_official_documents_laid_over_ours_are_enforced_and_each_repair_is_reported(
    specs, tmp_path
):
    used = use_specs(OURS, specs, tmp_path / "out")
    assert any("uae-account-information-openapi.yaml v2.1-errata2" in d for d in used.documents)
    assert len(used.repairs) == 36
    assert load_contract(tmp_path / "out", None).routes == load_contract(OURS, None).routes


def test_another_version_is_served_beside_ours(specs, tmp_path):
    derived = tmp_path / "official/v2.2"
    derived.mkdir(parents=True)
    name = "uae-account-information-openapi.yaml"
    text = (specs / "dist/standards/v2.1-errata2" / name).read_text()
    (derived / name).write_text(
        text.replace("/account-information/v2.1", "/account-information/v2.2")
    )
    use_specs(OURS, derived.parent, tmp_path / "out")
    contract = load_contract(tmp_path / "out", None)
    old, _ = contract.match("GET", "/open-finance/account-information/v2.1/accounts")
    new, _ = contract.match("GET", "/open-finance/account-information/v2.2/accounts")
    assert (old.version, new.version, new.id) == (
        "v2.1",
        "v2.2",
        "account-information.accounts@v2.2",
    )
    answer = contract.mapper(new.mapper)(
        {"data": [{"id": "a", "description": "d"}]}, Context(url="u")
    )
    assert answer["Data"] == {"Account": [{"AccountId": "a"}]}


def test_a_new_releases_changes_are_told(specs):
    standards = specs / "dist/standards"
    changes = diff_specs(standards / "v2.1", standards / "v2.1-errata2")
    assert any(d.what == "is gone" for d in changes)
    assert any(d.where.startswith("uae-account-information-openapi.yaml GET") for d in changes)
    assert diff_specs(standards / "v2.1", standards / "v2.1") == ()


@pytest.fixture
def configuration(tmp_path):
    """Write a tenant's configuration whose state folder is in the test's own."""
    text = (config_folder() / "hub.production.toml").read_text()
    assert "[state]" in text
    (tmp_path / "state").mkdir(mode=0o700)
    path = tmp_path / "hub.toml"
    lines = [
        f'folder = "{tmp_path}/state"' if line.startswith("folder =") else line
        for line in text.splitlines()
    ]
    path.write_text("\n".join(lines))
    return path


def command(*arguments):
    ran = CliRunner().invoke(main, ["specs", *map(str, arguments)])
    return ran.exit_code, ran.output


def test_the_commands_say_what_is_enforced_and_what_differs(specs, configuration, tmp_path):
    state = tmp_path / "state"
    assert "account-information" in command("list")[1]
    assert command("check", specs) == (0, command("check", specs)[1])
    assert "0 of them not listed" in command("check", specs)[1]
    code, told = command("use", specs, "--config", configuration)
    assert code == 0, told
    assert told.count("repaired  ") == 36
    assert used_specs(state) == state / "specs"
    assert command("list", "--config", configuration)[0] == 0
    assert command("use", "--ours", "--config", configuration)[0] == 0
    assert used_specs(state) is None


def test_what_cannot_be_used_leaves_what_was_used_before(specs, configuration, tmp_path):
    assert command("use", specs, "--config", configuration)[0] == 0
    empty = tmp_path / "empty"
    empty.mkdir()
    code, told = command("use", empty, "--config", configuration)
    assert code == 2
    assert "none of our documents" in told
    assert used_specs(tmp_path / "state") is not None
    assert not (tmp_path / "state/specs.partial").exists()
    assert command("use", "--config", configuration)[0] == 2


ATM = "uae-atm-openapi.yaml"
HEAD = "openapi: 3.0.0\ninfo: {version: v2.1}\n"
SCHEMA = (
    'paths: {/atms: {get: {responses: {"200": {content: {application/json: {schema: %s}}}}}}}\n'
)
REFERENCE = "{$ref: '#/components/schemas/A'}"
CIRCLE = f"components: {{schemas: {{A: {{type: object, properties: {{a: {REFERENCE}}}}}}}}}\n"
BAD_DOCUMENTS = {
    "not YAML": b"a: [b\n",
    "not text": b"\xcb\xff\x00",
    "no info": b"openapi: 3.0.0\npaths: {}\n",
    "no paths": f"{HEAD}paths:\n".encode(),
    "an operation that is none": f"{HEAD}paths: {{/atms: {{get: 5}}}}\n".encode(),
    "a reference to nothing": (HEAD + SCHEMA % REFERENCE).encode(),
    "references in a circle": (HEAD + SCHEMA % REFERENCE + CIRCLE).encode(),
    "types of another OpenAPI": (HEAD + SCHEMA % "{type: [string, 'null']}").encode(),
}


@pytest.mark.parametrize("name", BAD_DOCUMENTS)
def test_a_document_that_cannot_be_read_is_told_in_one_line(name, configuration, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / ATM).write_bytes(BAD_DOCUMENTS[name])
    for arguments in (["check", bad], ["diff", bad, bad], ["use", bad, "--config", configuration]):
        code, told = command(*arguments)
        assert (code, told.count("\n")) == (2, 1), told
        assert ATM in told
    assert used_specs(tmp_path / "state") is None


def test_a_pattern_that_is_none_is_told_before_anything_counts(specs, configuration, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    text = (specs / "dist/standards/v2.1" / ATM).read_text()
    (bad / ATM).write_text(text.replace("pattern: ", "pattern: '[' # "))
    code, told = command("use", bad, "--config", configuration)
    assert (code, told.count("\n")) == (2, 1), told
    assert used_specs(tmp_path / "state") is None


def test_what_is_enforced_is_one_or_the_other_whenever_the_command_is_ended(
    specs, tmp_path, monkeypatch
):
    official, state = tmp_path / "official", tmp_path / "state"
    official.mkdir()
    shutil.copy(specs / "dist/standards/v2.1" / ATM, official)
    lay_down(official, OURS, state)
    for fatal in range(1, 3):
        count = iter(range(1, 9))
        rename = Path.rename

        def ended(source, target, count=count, fatal=fatal, rename=rename):
            if next(count) == fatal:
                raise KeyboardInterrupt
            return rename(source, target)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", ended)
            with pytest.raises(KeyboardInterrupt):
                lay_down(official, OURS, state)
        assert list_specs(used_specs(state)), fatal
    lay_down(official, OURS, state)
    assert used_specs(state) == state / "specs"
    assert sorted(path.name for path in state.iterdir()) == ["specs"]
    lay_down(None, OURS, state)
    assert used_specs(state) is None
    assert list(state.iterdir()) == []


def test_another_version_is_served_only_where_the_configuration_says_so(specs, tmp_path):
    derived = tmp_path / "official/v9.7"
    derived.mkdir(parents=True)
    name = "uae-atm-openapi.yaml"
    text = (specs / "dist/standards/v2.1" / name).read_text()
    (derived / name).write_text(text.replace("/atm/v2.1", "/atm/v9.7"))
    use_specs(OURS, derived.parent, tmp_path / "out")
    path = "/open-finance/atm/v9.7/atms"
    cache = tmp_path / "cache"
    assert load_contract(tmp_path / "out", cache, ()).match("GET", path) is None
    assert load_contract(tmp_path / "out", cache, ("v9.7",)).match("GET", path) is not None


def test_what_is_served_is_described_for_tpps_and_for_the_bank():
    for options, path in (((), "/open-finance/atm/v2.1/atms"), (("--bank",), "/consents")):
        code, told = command("describe", "--server", "https://hub.test", *options)
        assert code == 0
        document = orjson.loads(told)
        assert path in document["paths"]
        assert document["servers"] == [{"url": "https://hub.test"}]
