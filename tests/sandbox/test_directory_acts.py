"""What can be done to the sandbox's Trust Framework: by its table of acts, on its page, and through its API."""

import stat
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

import orjson
import pytest
from cryptography import x509

from hub.model.clock import SeededDice
from hub.sandbox.directory import ActError, Acts, directory_page
from hub.sandbox.pki import read_certificate
from hub.sandbox.site import NO_FAULT, Faults
from tests.sandbox.test_directory import (
    APP,
    NOW,
    ORG,
    ask,
    clock,
    directory,
    keys,
    opened,
    write,
)

__all__ = ["clock", "directory", "keys", "opened"]

PAGE = "https://localhost:24014"


@pytest.fixture
def sites():
    return {"directory": Faults(), "pki": Faults()}


@pytest.fixture
def acts(directory, sites):
    return Acts(directory, sites)


def test_a_new_tpp_gets_everything_that_a_client_needs(acts, directory, clock):
    organisation = acts.carry("new_organisation", {"name": "Snow <FZ>"})["organisation_id"]
    given = {
        "organisation_id": organisation,
        "name": "Snow",
        "redirect_uri": "https://a/1 https://a/2",
    }
    client = acts.carry("new_application", given)["client_id"]
    assert directory.register.application(client).redirect_uris == ("https://a/1", "https://a/2")
    for kind in ("transport", "signing", "encryption"):
        made = acts.carry("new_key", {"client_id": client, "kind": kind})
        certificate = read_certificate(Path(made["certificate"]))
        assert "Snow <FZ>" in certificate.subject.rfc4514_string().replace("\\", "")
        assert stat.S_IMODE(Path(made["key"]).stat().st_mode) == 0o600
        assert directory.register.key(made["kid"])[1].client_id == client
    listed = acts.carry("list", {})["organisations"]
    (shown,) = [o for o in listed if o["organisation_id"] == organisation]
    assert shown["roles"] == ["BDSP", "BSIP"]
    assert shown["applications"][0]["keys"][0]["type"] == "OPF UAE CLIENT TRANSPORT"


def test_a_certificate_is_made_to_expire_in_some_seconds(acts, directory):
    made = acts.carry("new_key", {"client_id": APP, "kind": "transport", "seconds": "60"})
    ends = read_certificate(Path(made["certificate"])).not_valid_after_utc
    assert int(ends.timestamp()) == NOW + 60
    again = acts.carry("expire", {"kid": made["kid"], "seconds": "5"})
    fresh = x509.load_pem_x509_certificates(Path(again["certificate"]).read_bytes())
    assert int(fresh[0].not_valid_after_utc.timestamp()) == NOW + 5
    assert fresh[0].public_key() == read_certificate(Path(made["certificate"])).public_key()
    assert fresh[1].subject == fresh[0].issuer
    assert directory.register.key(again["kid"])[1].client_id == APP
    with pytest.raises(KeyError):
        directory.register.key(made["kid"])


def test_sites_go_down_slow_and_wrong_and_come_up_again(acts, sites):
    for act in ("down", "slow", "wrong"):
        assert acts.carry(act, {})["sites"] == ["directory", "pki"]
        assert all(site.plan != NO_FAULT for site in sites.values())
    acts.carry("up", {"site": "pki"})
    assert sites["pki"].plan is NO_FAULT
    assert sites["directory"].plan.wrong_shape


@pytest.mark.parametrize(
    ("act", "members"),
    [
        ("fly", {}),
        ("_table", {}),
        ("revoke", {}),
        ("revoke", {"kid": 7}),
        ("revoke", {"kid": "unknown"}),
        ("new_key", {"client_id": APP, "kind": "magic"}),
        ("new_key", {"client_id": "../../etc", "kind": "signing"}),
        ("new_key", {"client_id": APP, "kind": "signing", "seconds": "-1"}),
        ("new_key", {"client_id": APP, "kind": "signing", "seconds": "99999999999999"}),
        ("new_organisation", {"name": "a\nb"}),
        ("new_organisation", {"name": "a", "roles": "KING"}),
        ("new_organisation", {"name": "a", "size": "XXL"}),
        ("new_application", {"organisation_id": ORG, "name": "a", "redirect_uri": "http://a"}),
        ("drop_role", {"organisation_id": ORG, "role": "KING"}),
        ("down", {"site": "moon"}),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(acts, act, members):
    with pytest.raises(ActError, match=r"^[^\n]+$"):
        acts.carry(act, members)


class Forms(HTMLParser):
    """Read a page's forms, labels and headings."""

    def __init__(self):
        super().__init__()
        self.token = ""
        self.acts = []
        self.labelled = set()
        self.controls = []
        self.ids = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "label":
            self.labelled.add(given["for"])
        if given.get("type") == "hidden":
            if given["name"] == "token":
                self.token = given["value"]
            else:
                self.acts.append(given["value"])
        elif tag in {"input", "select"}:
            self.controls.append(given["id"])


@pytest.fixture
def page(acts):
    return directory_page(acts, PAGE, SeededDice("page"))


async def forms_of(page):
    answer = await page(ask("/"))
    assert answer.status == 200
    forms = Forms()
    forms.feed(answer.body.decode())
    return forms, answer


def post(forms, origin=PAGE, **fields):
    body = urlencode({"token": forms.token, **fields}).encode()
    return ask("/", "POST", body, content_type="application/x-www-form-urlencoded", origin=origin)


async def test_the_page_shows_everybody_and_every_act_and_each_control_has_a_label(page, acts):
    acts.carry("new_organisation", {"name": "<script>alert(1)</script>"})
    forms, answer = await forms_of(page)
    assert set(forms.acts) == set(acts.table) - {"list"}
    assert set(forms.controls) <= forms.labelled
    assert len(forms.ids) == len(set(forms.ids))
    text = answer.body.decode()
    assert '<html lang="en">' in text
    assert "<script>" not in text
    assert "Rain FZ-LLC" in text
    assert "script" not in dict(answer.headers)["content-security-policy"]


async def test_everything_can_be_changed_on_the_page(page, directory):
    forms, _ = await forms_of(page)
    answer = await page(post(forms, act="suspend", client_id=APP))
    assert answer.status == 200
    assert b'role="status"' in answer.body
    assert directory.register.application(APP).status == "Suspended"
    answer = await page(post(forms, act="suspend", client_id="nobody"))
    assert answer.status == 400
    assert b'role="alert"' in answer.body


async def test_a_form_from_elsewhere_changes_nothing(page, directory):
    forms, _ = await forms_of(page)
    fields = {"act": "suspend", "client_id": APP}
    assert (await page(post(forms, origin="https://evil.example", **fields))).status == 403
    forms.token = "guess"
    assert (await page(post(forms, **fields))).status == 403
    assert (await page(ask("/", "POST", b"\xff" * 20_000, origin=PAGE))).status == 403
    assert (await page(ask("/", "DELETE"))).status == 405
    assert (await page(ask("/else"))).status == 404
    assert directory.register.application(APP).status == "Active"


async def test_a_software_statement_is_created_through_the_api(directory, keys):
    asked = {"ClientName": "Second", "RedirectUri": ["https://tpp/cb"], "Roles": ["BDSP", "LFI"]}
    path = f"/organisations/{ORG}/softwarestatements"
    status, made = await write(
        directory, keys, "POST", path, orjson.dumps(asked), "application/json"
    )
    assert status == 201
    assert made["Roles"] == ["BDSP"]
    assert directory.register.application(made["ClientId"]).name == "Second"


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (f"/organisations/{ORG}/softwarestatements", b"{}", 400),
        (f"/organisations/{ORG}/softwarestatements", b"noise", 400),
        (
            f"/organisations/{ORG}/softwarestatements",
            b'{"ClientName":"a","RedirectUri":["http://plain"]}',
            400,
        ),
        ("/organisations/0f7f2ffa-3af2-4b5a-9f54-4d30a3a1f1a1/softwarestatements", b"{}", 403),
        ("/organisations", b'{"OrganisationName":"New"}', 403),
    ],
)
async def test_what_the_api_does_not_allow_is_refused(directory, keys, path, body, expected):
    status, _ = await write(directory, keys, "POST", path, body, "application/json")
    assert status == expected


async def test_an_operators_application_adds_an_organisation(directory, keys):
    directory.add_organisation(
        organisation_id=ORG, name="Rain FZ-LLC", size="TSP", roles=["BDSP", "BSIP"]
    )
    body = orjson.dumps({"OrganisationName": "New LLC", "Roles": ["BDSP"]})
    status, made = await write(directory, keys, "POST", "/organisations", body, "application/json")
    assert (status, made["OrganisationName"]) == (201, "New LLC")
    assert directory.register.organisation(made["OrganisationId"]).roles == ("BDSP",)
