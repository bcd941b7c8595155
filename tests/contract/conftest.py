"""The official documents, where they are, and our compiled contract."""

import os
import tomllib
from pathlib import Path

import pytest

from hub.config import config_folder
from hub.contract import load_contract
from hub.contract.compiling import read_schemas
from hub.contract.official import find_documents, read_document, sites_of


@pytest.fixture(scope="session")
def specs():
    """Return the folder of official documents."""
    default = Path(__file__).parents[3] / "shared/reference/api-specs"
    folder = Path(os.environ.get("HUB_SPECS", default))
    assert folder.is_dir(), "set HUB_SPECS to the official documents"
    return folder


@pytest.fixture(scope="session")
def official(specs):
    """Return the official sites that our contract has, by our schema file's name, repaired.

    What it lacks is ``hub specs check``'s business: each such site is listed with its reason, or fails there.
    """
    ours = read_schemas(config_folder() / "contract")
    documents = find_documents(specs)
    sources = tomllib.loads((config_folder() / "contract/sources.toml").read_text())
    return {
        name: {
            site: schema
            for site, schema in sites_of(read_document(documents[row["document"]])).items()
            if site in ours[name].sites
        }
        for name, row in sources.items()
    }


@pytest.fixture(scope="session")
def contract():
    """Return the shipped contract."""
    return load_contract(config_folder() / "contract", None)
