"""``hub explain`` and the page behind ``error_uri`` say the same of every code."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from hub import gateway
from hub.authz.explanations import explain, names
from hub.cli import main
from hub.model import limits
from hub.trust.decide import CHECKS
from tests.authz.desk import ISSUER


async def page(desk, code):
    path = f"/errors/{code}"
    return await desk.tpp["GET", "/errors/{check}"](desk.request("GET", path))


async def test_page_and_command_say_the_same_of_every_code(desk):
    assert len(set(names())) == len(names()) > 80
    for code in names():
        answer = await page(desk, code)
        told = CliRunner().invoke(main, ["explain", code])
        assert (answer.status, told.exit_code) == (200, 0)
        assert told.output == answer.body.decode()
        assert len(told.output) > 20


@pytest.mark.parametrize("code", ["nothing", "client_assertion.audiense", "../etc", ""])
async def test_an_unknown_code_is_told_so(desk, code):
    assert (await page(desk, code)).status == 404
    told = CliRunner().invoke(main, ["explain", code or "x"])
    assert told.exit_code == 2
    assert "no such code" in told.stderr
    if code.startswith("client"):
        assert "did you mean client_assertion.audience" in told.stderr


def test_a_whole_error_uri_may_be_given():
    told = CliRunner().invoke(main, ["explain", f"{ISSUER}/errors/client_assertion.audience"])
    assert told.output.startswith("Expect aud to be exactly the issuer")


def test_without_a_code_all_are_listed():
    assert CliRunner().invoke(main, ["explain"]).output.split() == list(names())


@pytest.mark.parametrize("check", CHECKS)
def test_every_check_of_the_trust_framework_has_a_meaning_of_its_own(check):
    assert check in names()


def test_every_check_that_an_answer_of_the_resources_names_has_a_page():
    families = "consent|enforce|file|jwe|jws|limits|payee|payment|reports|request|throttle|token"
    named = re.compile(rf'"((?:{families})\.[a-z_]+)"')
    sources = [*Path(gateway.__file__).parent.glob("*.py"), Path(limits.__file__)]
    checks = {name for path in sources for name in named.findall(path.read_text())}
    assert {"file.hash", "jwe.key", "enforce.role", "payment.key_reused"} <= checks
    assert {name for name in checks if explain(name) is None} == set()
