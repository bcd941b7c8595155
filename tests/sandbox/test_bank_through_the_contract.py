"""What the model bank answers, mapped as the Hub maps it, is what the standard promises to a TPP."""

import json
import os
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from hub.config import config_folder
from hub.contract.contract import Contract, load_contract
from hub.contract.official import find_documents, read_document
from hub.contract.shape import Context
from hub.sandbox.bank.people import CUSTOMERS
from tests.sandbox.bank_world import World

BASE = "/open-finance/account-information/v2.1"
PAGE = "page=1&page-size=1000"
PER_ACCOUNT = (
    ("", ""),
    ("/balances", "/balances"),
    ("/transactions", "/transactions"),
    ("/direct-debits", "/direct-debits"),
    ("/scheduled-payments", "/scheduled-payments"),
    ("/standing-orders", "/standing-orders"),
    ("/parties", "/customer"),
    ("/beneficiaries", "/beneficiaries"),
    ("/product", "/products"),
    ("/statements", "/statements"),
)


@pytest.fixture(scope="module")
def contract() -> Contract:
    return load_contract(config_folder() / "contract", None)


def reads() -> list[tuple[str, str, str, str, str]]:
    """Return username, account, the TPP's path below the base and its template, and the bank's path."""
    found = []
    for customer in CUSTOMERS:
        ids = ",".join(customer.accounts)
        found += [
            (customer.username, "", "/accounts", "/accounts", f"/accounts?accountIds={ids}&{PAGE}"),
            (customer.username, "", "/parties", "/parties", "/customer"),
        ]
        for account in customer.accounts:
            for end, bank_end in PER_ACCOUNT:
                bank = f"/accounts/{account}{bank_end}?{PAGE}"
                path, template = f"/accounts/{account}{end}", f"/accounts/{{AccountId}}{end}"
                found.append((customer.username, account, path, template, bank))
    return found


async def mapped(world: World, contract: Contract, path: str, bank: str, **who: str) -> Any:
    matched = contract.match("GET", BASE + path)
    assert matched is not None, path
    route = matched[0]
    answer = json.loads((await world.call(bank, username=who["username"])).body)
    assert contract.check_bank_answer(route.id, answer) is None
    url = f"https://rs.example{BASE}{path}"
    result = contract.mapper(route.mapper)(
        answer, Context(url=url, account_id=who["account"]), strip=False
    )
    assert contract.check_answer(route.id, result) is None
    return result


@pytest.mark.specs
async def test_every_answer_about_accounts_reaches_the_tpp_in_the_published_shape(
    tmp_path: Path, contract: Contract
) -> None:
    root = Path(os.environ.get("HUB_SPECS", "../shared/reference/api-specs")) / "dist"
    path = find_documents(root)["uae-account-information-openapi.yaml"]
    operations = read_document(path).operations
    validators = {
        template: jsonschema_rs.validator_for(op.bodies["200"]["application/json"])
        for (method, template), op in operations.items()
        if method == "GET" and "application/json" in op.bodies.get("200", {})
    }
    world = World(tmp_path)
    for customer in CUSTOMERS:
        for account in customer.accounts:
            world.book.set_status(account, "Active")
    for username, account, path, template, bank in reads():
        world.grant(username)
        result = await mapped(world, contract, path, bank, username=username, account=account)
        validators[template].validate(json.loads(json.dumps(result)))
