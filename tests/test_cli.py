"""The command line: what was asked wrongly is one line that says what was expected; never a traceback, never silence."""

import errno
import os
import subprocess
import sys
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from hub.audit.tiles import LogError
from hub.cli import main, seconds_of
from hub.cli_run import CANNOT_START, run
from hub.config import config_folder
from hub.node.errors import StartError
from hub.sandbox.journey import choose_customer
from hub.sandbox.manifest import SandboxOptions
from hub.sandbox.places import Places
from hub.sandbox.tenant import check_base
from tests.audit import test_retention

tenant = test_retention.tenant


def told(*arguments):
    """Run a command that must be refused; return its exit status and its words."""
    done = CliRunner().invoke(main, [str(one) for one in arguments])
    assert done.exit_code != 0
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.output.strip(), "silence"
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--payment", "--plans"), "--payment and --plans: expected one journey"),
        (("--plans", "--decline"), "--plans takes no --decline"),
        (("--revoke", "--decline"), "--revoke takes no --decline"),
        (("--approvers", "--customer", "omar"), "--approvers takes no --customer"),
        (("--open-data", "--decline"), "--open-data takes no --decline"),
    ],
)
def test_a_journey_that_would_not_be_the_one_asked_for_is_not_begun(tmp_path, arguments, words):
    code, output = told("tpp", "journey", "--sandbox", tmp_path, *arguments)
    assert code == 2
    assert words in output


@pytest.mark.parametrize(
    "uri", ["http://tpp.example", "https://", "x", "https://a b", "https://a#b", "https://[x"]
)
def test_a_redirect_uri_that_no_hub_takes_is_not_registered(tmp_path, uri):
    code, output = told("sandbox", "--dir", tmp_path, "--tpp-redirect-uri", uri)
    assert code == 2
    assert "expected an https URL" in output


def test_the_clock_is_moved_either_way_and_nothing_else_is_an_amount(tmp_path):
    assert [seconds_of(one) for one in ("+10m", "-1h", "5", "2d", "0s")] == [
        600,
        -3600,
        5,
        172800,
        0,
    ]
    for amount in ("10x", "", "1e9", "٣m", "1_0", "--foo", "+", "m", "9" * 13):
        code, output = told("sandbox", "time", "--dir", tmp_path, amount)
        assert (code, "expected a number" in output) == (2, True), amount
    for amount in ("-10m", "-1h", "-2d", "-5"):
        assert told("sandbox", "time", "--dir", tmp_path, amount)[0] == CANNOT_START, amount


@pytest.mark.parametrize(
    ("amount", "words"),
    [("+10m", "now stands at 2026-01-01T00:10:00+00:00"), ("+500d", "hub: add: expected at most")],
)
def test_the_clock_that_was_moved_is_told_as_a_date_and_a_refusal_as_it_came(
    tmp_path, monkeypatch, amount, words
):
    async def ask(_folder, request):
        if request["add"] > 86_400 * 400:
            return {"ok": False, "error": "add: expected at most 1 second either way"}
        at = datetime(2026, 1, 1, tzinfo=UTC).timestamp() + request["add"]
        return {"ok": True, "now": int(at)}

    monkeypatch.setattr("hub.sandbox.control.ask", ask)
    done = CliRunner().invoke(main, ["sandbox", "time", "--dir", str(tmp_path), amount])
    assert words in done.output


def test_a_journey_at_a_bank_of_ones_own_is_refused_in_words():
    with pytest.raises(StartError, match="the bank is your own"):
        choose_customer(SimpleNamespace(customers=[]), "")


def test_a_file_that_is_not_there_is_named_without_a_traceback(tmp_path):
    key = tmp_path / "key"
    key.write_text("")
    for arguments in (("sign", "--key", key, "--kid", "k"), ("decode",)):
        code, output = told("tpp", *arguments, tmp_path / "none")
        assert code == CANNOT_START
        assert output == f"hub: {tmp_path / 'none'}: No such file or directory\n"


def test_a_signed_body_needs_its_audience(tmp_path):
    key = tmp_path / "key"
    key.write_text("")
    for half in ("--client-id", "--audience"):
        code, output = told("tpp", "sign", "--key", key, "--kid", "k", half, "x", key)
        assert (code, "belong together" in output) == (2, True)


def test_a_bundle_without_certificates_is_refused_before_anything_is_fetched():
    bundle = config_folder() / "limits.toml"
    code, output = told("directory", "lint", "https://localhost:1/x", "--ca", bundle)
    assert code == CANNOT_START
    assert "expected PEM certificates" in output


@pytest.mark.parametrize("inner", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_what_the_machines_files_refuse_is_one_line_wherever_it_comes_from(capsys, inner):
    def start():
        error = OSError(inner, "refused by the disk", "/place")
        raise ExceptionGroup("tasks", [ExceptionGroup("more", [error])])

    with pytest.raises(SystemExit) as ended:
        run(start)
    assert ended.value.code == CANNOT_START
    assert capsys.readouterr().err == "hub: /place: refused by the disk\n"


def test_a_bug_stays_loud():
    def start():
        raise ExceptionGroup("tasks", [OSError(errno.EBADF, "bug"), OSError(errno.ENOSPC, "full")])

    with pytest.raises(ExceptionGroup):
        run(start)


def test_a_folder_that_has_run_is_started_at_the_ports_it_was_made_for(tmp_path):
    log = tmp_path / "state/audit/log"
    log.mkdir(parents=True)
    (log / "checkpoint").write_text("localhost:8400/log\n7\nroot\n")
    check_base(Places(folder=tmp_path, base=8400), SandboxOptions(folder=tmp_path))
    with pytest.raises(StartError, match=r"--port-base 8400, or choose another folder with --dir"):
        check_base(Places(folder=tmp_path, base=9000), SandboxOptions(folder=tmp_path))


QUESTIONS = (
    (("trace", "none"), "none: no event of this interaction"),
    (("search", "--consent", "none"), "no event is as asked for"),
    (("search", "--verdict", "denied"), "'refused'"),
    (("search", "--status", "99999999999999999999"), "--status"),
    (("search", "--before", "-3"), "--before"),
    (("search", "--before", "9223372036854775808"), "--before"),
    (("tail", "--from-index", "-5"), "--from-index"),
    (("report", "errors", "--from", "x", "--to", "y"), "expected two days like 2026-11-01"),
    (
        ("report", "errors", "--from", "2026-11-02", "--to", "2026-11-01"),
        "the first no later than the last",
    ),
    (("receipt", "i3", "--to", "/proc/none"), "/proc/none"),
    (("export", "/proc/none"), "/proc/none"),
)
"""What is asked of the audit log, and what its answer must hold."""


def test_the_audit_log_answers_every_question_with_a_word(tenant):
    test_retention.fill(tenant, 5)
    for arguments, words in QUESTIONS:
        code, output = told("audit", "--config", tenant, *arguments)
        assert code in {1, 2, CANNOT_START}, arguments
        assert words in output, arguments
    days = ("--from", "2001-01-01", "--to", "2001-01-02")
    done = CliRunner().invoke(main, ["audit", "--config", str(tenant), "report", "errors", *days])
    assert done.exit_code == 0
    assert (done.stdout, done.stderr) == ("", "hub: nothing to report of these days\n")


def test_a_report_of_all_days_there_are_is_one(tenant):
    test_retention.fill(tenant, 1)
    days = ("--from", "0001-01-01", "--to", "9999-12-31")
    command = ["audit", "--config", str(tenant), "report", "availability", *days]
    done = CliRunner().invoke(main, command)
    assert (done.exit_code, done.exception) == (0, None)
    assert done.output.strip()


def test_a_log_of_another_issuer_is_named_where_it_cannot_be_continued(tenant):
    test_retention.fill(tenant, 3)
    tenant.write_text(tenant.read_text().replace("auth1.examplebank", "auth2.examplebank"))
    words = r"signed as auth1\.examplebank.*trusted is auth2\."
    with pytest.RaisesGroup(pytest.RaisesExc(LogError, match=words), flatten_subgroups=True):
        test_retention.fill(tenant, 1)


def test_the_shell_completes_the_program_by_its_name_in_a_checkout_too():
    done = subprocess.run(
        [sys.executable, "-m", "hub"],
        env={**os.environ, "_HUB_COMPLETE": "bash_source"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "_hub_completion" in done.stdout
    assert done.returncode == 0
