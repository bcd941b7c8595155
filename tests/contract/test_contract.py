"""The compiled contract: routes, requests, authorization details, formats, the cache."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hub.config import config_folder
from hub.contract import Context, compiling, load_contract
from hub.contract.contract import GENERATORS
from hub.contract.mapping import number
from hub.contract.notation import condense, expand, name_repeats
from hub.contract.repair import repair
from hub.contract.tables import Matcher
from hub.contract.validators import FORMATS, is_date_or_time, is_date_time
from hub.model.fault import Fault
from hub.model.route import Route

FOLDER = config_folder() / "contract"
AIS = "/open-finance/account-information/v2.1"
DETAIL = {
    "type": "urn:openfinanceuae:account-access-consent:v2.1",
    "consent": {
        "ConsentId": "6f9619ff-8b86-4011-b42d-00c04fc964ff",
        "ExpirationDateTime": "2027-01-01T00:00:00Z",
        "Permissions": ["ReadAccountsBasic"],
        "OpenFinanceBilling": {"UserType": "Retail", "Purpose": "AccountAggregation"},
    },
}


def test_every_bank_route_has_a_mapper_and_every_id_is_unique(contract):
    assert len({r.id for r in contract.routes}) == len(contract.routes)
    for route in contract.routes:
        if route.target == "bank" and route.mapper:
            assert contract.mapper(route.mapper)


@pytest.mark.parametrize(
    ("path", "route", "parameters"),
    [
        ("/accounts", "accounts", {}),
        ("/accounts/a-1", "account", {"AccountId": "a-1"}),
        ("/accounts/a%2B1/balances", "balances", {"AccountId": "a+1"}),
        ("/account-access-consents/c", "account-access-consent", {"ConsentId": "c"}),
    ],
)
def test_a_path_finds_its_route(contract, path, route, parameters):
    found, values = contract.match("GET", AIS + path)
    assert (found.id, values) == (f"account-information.{route}", parameters)


@pytest.mark.parametrize(
    "path", ["/accounts/", "/accounts//balances", "/Accounts", "", "/accounts/a/b/c", "/{}"]
)
def test_another_path_finds_nothing(contract, path):
    assert contract.match("GET", AIS + path) is None
    assert contract.methods(AIS + path) == ()


def test_two_routes_of_one_shape_are_a_mistake():
    one = Route(id="a", family="f", version="v", method="GET", path="/x/{A}")
    two = Route(id="b", family="f", version="v", method="GET", path="/x/{B}")
    with pytest.raises(ValueError, match="two routes match"):
        Matcher((one, two))


def test_a_misspelt_key_of_a_row_is_a_mistake(tmp_path):
    folder = shutil.copytree(FOLDER, tmp_path / "contract")
    path = folder / "routes/account-information.toml"
    path.write_text(path.read_text().replace('permissions = ["ReadBalances"]', "permission = []"))
    with pytest.raises(ValueError, match="unknown keys"):
        load_contract(folder, None)


def test_a_required_member_that_nothing_fills_is_a_mistake(tmp_path):
    folder = shutil.copytree(FOLDER, tmp_path / "contract")
    path = folder / "mappers.toml"
    path.write_text(path.read_text().replace('DateTime = ["timestamp"]', ""))
    with pytest.raises(ValueError, match="DateTime"):
        load_contract(folder, None)


def test_an_authorization_detail_is_judged(contract):
    assert contract.check_authorization_details(DETAIL["type"], DETAIL) is None


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"ConsentId": "no-uuid-canary"}, "/consent/ConsentId"),
        ({"ExpirationDateTime": "2027-01-01canary"}, "/consent/ExpirationDateTime"),
        ({"Permissions": []}, "/consent/Permissions"),
        ({"Permissions": ["canary"]}, "/consent/Permissions/0"),
        ({"Canary": 1}, "/consent"),
    ],
)
def test_what_is_wrong_in_a_detail_is_named_and_never_repeated(contract, change, path):
    element = {**DETAIL, "consent": {**DETAIL["consent"], **change}}
    fault = contract.check_authorization_details(DETAIL["type"], element)
    assert (fault.status, fault.code, fault.path) == (400, "invalid_authorization_details", path)
    assert "canary" not in (fault.public + fault.private).lower()


def test_an_unknown_type_of_detail_is_refused(contract):
    fault = contract.check_authorization_details("urn:x", {"type": "urn:x"})
    assert fault.check == "authorization_details.type"


def test_another_process_fills_the_cache_and_a_spoilt_cache_is_compiled_anew(contract, tmp_path):
    code = (
        "import sys; from pathlib import Path; from hub.contract import load_contract\n"
        "assert load_contract(Path(sys.argv[1]), Path(sys.argv[2])).routes\n"
        "print('hub.contract.compiling' in sys.modules, 'yaml' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(FOLDER), str(tmp_path)]
    assert subprocess.check_output(command, text=True) == "False False\n"
    [kept] = tmp_path.glob("contract-*.bin")
    again = load_contract(FOLDER, tmp_path)
    assert again.routes == contract.routes
    assert again.check_authorization_details(DETAIL["type"], DETAIL) is None
    kept.write_bytes(kept.read_bytes()[:1000])
    assert load_contract(FOLDER, tmp_path).routes == contract.routes


def test_the_key_of_the_cache_knows_every_module_that_compiling_needs():
    folder = Path(compiling.__file__).parent
    needed, found = {"compiling"}, set()
    while needed - found:
        found |= needed
        for name in tuple(needed):
            text = (folder / f"{name}.py").read_text()
            needed |= set(re.findall(r"^from hub\.contract\.(\w+) import", text, re.MULTILINE))
        needed.discard("contract")
    assert found == set(GENERATORS)
    build = (folder.parent.parent / "scripts/build").read_text()
    assert all(f"/hub/contract/{name}.py:hub/contract" in build for name in found)


def test_where_the_other_process_fails_the_contract_is_compiled_here(tmp_path, monkeypatch):
    def say(folder, rows):
        raise ValueError(f"compiled here: {folder.name}, {bool(rows)}")

    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-such-program"))
    monkeypatch.setattr(compiling, "compile_contract", say)
    with pytest.raises(ValueError, match="compiled here: contract, True"):
        load_contract(FOLDER, tmp_path / "cache")


def test_a_bank_answer_is_never_changed_by_its_mapper(contract):
    given = {
        "data": [
            {
                "id": "a",
                "nickName": "n" * 100,
                "servicer": {"schemeName": "OTHER", "identification": "i"},
            }
        ]
    }
    before = repr(given)
    answer = contract.mapper("account-information.accounts")(given, Context(url="https://h/x"))
    assert repr(given) == before
    [account] = answer["Data"]["Account"]
    assert account["Nickname"] == "n" * 70
    assert account["Servicer"]["SchemeName"] == "Other"


def test_an_identifier_is_never_cut(contract):
    answer = contract.mapper("account-information.accounts")(
        {"data": [{"id": "a" * 41}]}, Context(url="https://h/x")
    )
    assert isinstance(answer, Fault)
    assert "a" * 41 not in answer.private


@pytest.mark.parametrize(
    ("given", "whole", "made"),
    [
        ("12", True, 12),
        ("1.5", False, 1.5),
        ("1.5", True, None),
        ("x", False, None),
        ("١٢", True, None),
        (True, True, None),
        (3.0, True, 3),
        ("18446744073709551615", True, 2**64 - 1),
        ("18446744073709551616", True, None),
        ("-9223372036854775809", True, None),
        ("9" * 20, False, 1e20),
        (1e22, True, None),
    ],
)
def test_a_number_may_come_as_text(given, whole, made):
    assert number(given, whole=whole) == made


@pytest.mark.parametrize(
    ("text", "lawful"),
    [
        ("2024-02-29T00:00:00Z", True), ("2023-02-29T00:00:00Z", False), ("2024-01-01T00:00:00", False),
        ("2024-01-01T24:00:00Z", False), ("2024-01-01T23:59:60Z", True), ("2024-01-01T00:00:00+04:00", True),
        ("2024-01-01T00:00:00+0400", False), ("2024-01-01T00:00:00.123456789Z", True),
        ("2024-01-01T00:00:00+25:00", False), ("٢٠٢٤-01-01T00:00:00Z", False), ("2024-01-01T00:00:00Z\n", False),
    ],
)  # fmt: skip
def test_a_date_time_has_a_zone_and_exists(text, lawful):
    assert is_date_time(text) is lawful


@pytest.mark.parametrize("text", ["2024-01-01", "2024-01-01T00:00:00", "2024-01-01T00:00:00Z"])
def test_a_date_stands_for_midnight_in_queries(text):
    assert is_date_or_time(text)
    assert not is_date_or_time(text[:-1] + "x")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("uri", "com.app+x://cb", "no uri"),
        ("duration", "P1Y2M", "P"),
        ("base64", "QUJD", "QUJ"),
        ("email", "a@b", "a@b@c"),
        ("base64", "QUJD", "QUJä"),
        ("date", "2024-02-29", "2024-2-29"),
        ("date", "2024-02-29", "2024-W09-4"),
        ("date", "2024-02-29", "20240229\n\n"),
    ],
)
def test_formats_take_and_refuse(kind, good, bad):
    assert FORMATS[kind](good)
    assert not FORMATS[kind](bad)


def test_repair_closes_over_what_all_members_declare():
    schema = {
        "allOf": [
            {"type": "object", "required": ["iss"], "properties": {"iss": {"type": "string"}}},
            {"type": "object", "properties": {"message": {}}, "additionalProperties": False},
        ]
    }
    repaired = repair(schema, "/x")
    assert repaired.changed == ("/x",)
    assert set(repaired.schema["properties"]) == {"iss", "message"}
    assert repaired.schema["additionalProperties"] is False


def test_a_lawful_schema_is_not_repaired():
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "additionalProperties": False,
    }
    assert repair(schema).schema == schema
    assert repair(schema).changed == ()


def test_the_compact_form_says_the_same():
    schema = {
        "type": "object",
        "required": ["A"],
        "properties": {
            "A": {"type": "string", "minLength": 1, "maxLength": 3, "pattern": "^[a-z /]+$"},
            "B": {"type": "array", "items": {"type": "number", "maximum": 2.5}, "minItems": 1},
            "C": {"enum": ["x", "y"]},
        },
        "additionalProperties": False,
    }
    compact = condense(schema)
    assert compact["A!"] == "str 1..3 /^[a-z /]+$/"
    assert expand(compact) == schema


def test_what_repeats_is_named_once():
    amount = {"Amount!": "str /^[0-9]+$/", "Currency!": "str /^[A-Z]{3}$/"}
    named = name_repeats({"one": {"Fee!": amount}, "two": {"Fee": amount}})
    assert named["types"] == {"Fee": amount}
    assert named["sites"] == {"one": {"Fee!": "=Fee"}, "two": {"Fee": "=Fee"}}
