"""Official documents that were laid over ours for a tenant are what its node enforces from the next start on."""

import os
from pathlib import Path

import msgspec
import pytest

from hub.config import config_folder, load
from hub.contract.specs import lay_down
from hub.node.build import contract_of, description_of
from hub.node.errors import StartError

pytestmark = pytest.mark.specs
SPECS = Path(os.environ.get("HUB_SPECS", Path(__file__).parents[3] / "shared/reference/api-specs"))
ATMS = "/open-finance/atm/v9.7/atms"


@pytest.fixture
def settings(tmp_path):
    """Return a tenant's settings whose state is in the test's own folder."""
    found = load(config_folder() / "hub.production.toml", {}).settings
    state = msgspec.structs.replace(found.state, folder=tmp_path / "state")
    return msgspec.structs.replace(found, state=state)


@pytest.fixture
def derived(tmp_path):
    """Return a folder of documents derived from v2.1 by renaming the paths of one."""
    folder = tmp_path / "official/v9.7"
    folder.mkdir(parents=True)
    text = (SPECS / "dist/standards/v2.1/uae-atm-openapi.yaml").read_text()
    (folder / "uae-atm-openapi.yaml").write_text(text.replace("/atm/v2.1", "/atm/v9.7"))
    return folder.parent


def serving(settings, *versions):
    tenant = msgspec.structs.replace(settings.tenant, beside=versions)
    return msgspec.structs.replace(settings, tenant=tenant)


def test_a_derived_version_is_served_beside_ours_where_the_configuration_says_so(settings, derived):
    lay_down(derived, config_folder() / "contract", settings.state.folder)
    contract = contract_of(serving(settings, "v9.7"))
    assert contract.match("GET", ATMS) is not None
    assert contract.match("GET", ATMS.replace("v9.7", "v2.1")) is not None
    assert contract_of(settings).match("GET", ATMS) is None
    assert ATMS.encode() in description_of(serving(settings, "v9.7"))
    assert ATMS.encode() not in description_of(settings)


def test_documents_that_contradict_themselves_stop_the_start_with_one_line(settings, derived):
    lay_down(derived, config_folder() / "contract", settings.state.folder)
    routes = settings.state.folder / "specs/routes/atm.toml"
    routes.write_text(routes.read_text().replace("GET /atm", "GET /nowhere"))
    with pytest.raises(StartError, match="the contract cannot be loaded"):
        contract_of(settings)
