"""The official documents, where they are, and our compiled contract."""

import os
import tomllib
from pathlib import Path

import pytest

from hub.config import config_folder
from hub.contract import load_contract
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
    """Return the official sites by our schema file's name, repaired."""
    documents = find_documents(specs)
    sources = tomllib.loads((config_folder() / "contract/sources.toml").read_text())
    return {n: sites_of(read_document(documents[r["document"]])) for n, r in sources.items()}


@pytest.fixture(scope="session")
def contract():
    """Return the shipped contract."""
    return load_contract(config_folder() / "contract", None)
