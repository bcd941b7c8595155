"""The house rules that a machine can check: captions, sizes, names, and nothing that does not belong into the open."""

import ast
import re
import subprocess
from pathlib import Path

import orjson
import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "hub").rglob("*.py"))
STAMP = ROOT / ".compiled.json"


def tracked() -> list[str]:
    """Return what git tracks; in a compiled copy (scripts/compiled.py) what it was made of."""
    if STAMP.is_file():
        return list(orjson.loads(STAMP.read_bytes())["files"])
    run = ["git", "ls-files", "-z"]
    told = subprocess.run(run, cwd=ROOT, capture_output=True, check=False, text=True)
    return told.stdout.split("\0")


TRACKED = tracked()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_module_opens_with_one_caption_line_and_stays_readable(path):
    text = path.read_text()
    caption = (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]
    assert caption.endswith("."), "the first line of the module docstring is its caption"
    assert len(text.splitlines()) <= 500, "a module has at most 500 lines"


def test_no_module_is_named_after_nothing():
    names = {path.stem for path in MODULES} | {path.parent.name for path in MODULES}
    assert not names & {"utils", "helpers", "manager", "common", "misc", "util", "helper"}


def test_the_top_level_holds_the_agreed_folders_only():
    folders = {name.split("/")[0] for name in TRACKED if "/" in name}
    assert folders <= {"hub", "bench", "tests", "config", "scripts", ".ci"}


def test_lock_files_name_packages_and_hashes_only():
    locks = [ROOT / name for name in TRACKED if name.endswith(".lock")]
    assert len(locks) == 6
    for path in locks:
        text = path.read_text()
        assert not re.search(r"https?:|file:|--index|--find-links", text)
        assert all("==" in line for line in text.splitlines() if line and line[0] not in "# ")
        assert "--hash=sha256:" in text


def test_no_tracked_file_holds_a_path_of_one_machine():
    pattern = re.compile(rb"/(?:w[o]rk|r[o]ot|home/[a-z]+)/(?!\.)")
    for name in TRACKED:
        path = ROOT / name
        if path.is_file() and path.suffix not in {".png", ".json"}:
            found = pattern.search(path.read_bytes())
            assert not found, f"{name}: {found}"


# Tests do not sleep, and verify whom they talk to


def python_tests() -> list[Path]:
    return [path for path in sorted((ROOT / "tests").rglob("*.py")) if path != Path(__file__)]


def rests(name: str) -> bool:
    """Tell whether a name is one of something that lets time pass; to hang for ever is not to wait."""
    return name.lstrip("_").startswith("sleep") and name != "sleep_forever"


def sleeps(text: str) -> list[int]:
    """Return the lines of a module that sleep or get hold of something that does, under whatever name."""
    return [node.lineno for node in ast.walk(ast.parse(text)) if is_sleep(node)]


def is_sleep(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(attr=name) | ast.alias(name=name) | ast.Name(id=name):
            return rests(name)
        case ast.Constant(value=str() as words):  # getattr, a command, a program of one line
            return rests(words) or bool(re.search(r"\bsleep(_until)?\(|\bsleep [\d.$]", words))
        case ast.Call(func=ast.Attribute(attr="wait_all_tasks_blocked"), args=args, keywords=more):
            return bool(args or more)  # a cushion is a sleep
        case ast.While(body=[ast.Expr(value=ast.Await(value=ast.Call(func=rest)))]):
            return "checkpoint" in ast.unparse(rest)  # a poll that eats a core
        case _:
            return False


SLEEPERS = (
    "trio.sleep(1)",
    "time.sleep(0.1)",
    "await trio.sleep_until(deadline)",
    "asyncio.sleep(0)",
    "from trio import sleep as nap",
    "from time import sleep",
    "rest = trio.sleep",
    "nursery.start_soon(trio.sleep, 2)",
    "getattr(trio, 'sleep')(1)",
    "subprocess.run(['sleep', '1'])",
    "subprocess.run('sleep 0.5', shell=True)",
    "run(python, '-c', 'import time; time.sleep(3)')",
    "await trio.testing.wait_all_tasks_blocked(0.05)",
    "while not seen: await trio.lowlevel.checkpoint()",
)
WAITERS = (
    "await trio.sleep_forever()",
    "await until(lambda: seen, 5, 'it')",
    "await trio.testing.wait_all_tasks_blocked()",
    "with trio.fail_after(5): await event.wait()",
    "http.get('/sleep')",
)


@pytest.mark.parametrize("offender", SLEEPERS)
def test_the_rule_against_sleeping_catches(offender):
    assert sleeps(offender) == [1]


@pytest.mark.parametrize("decent", WAITERS)
def test_the_rule_against_sleeping_lets_pass(decent):
    assert sleeps(f"async def test():\n    {decent}") == []


def test_no_test_sleeps_except_in_the_one_module_that_waits():
    waiting = ROOT / "tests/waiting.py"
    assert sleeps(waiting.read_text()), "what looks for sleeps finds those that there are"
    found = {path: sleeps(path.read_text()) for path in python_tests() if path != waiting}
    assert {str(path): lines for path, lines in found.items() if lines} == {}


def unverified(text: str) -> list[int]:
    """Return the lines of a module that switch off a check of TLS."""
    return [node.lineno for node in ast.walk(ast.parse(text)) if is_unverified(node)]


def is_unverified(node: ast.AST) -> bool:
    match node:
        case ast.Assign(targets=[ast.Attribute(attr="check_hostname")], value=value):
            return not (isinstance(value, ast.Constant) and value.value is True)
        case ast.keyword(arg="verify" | "check_hostname" | "assert_hostname", value=value):
            return isinstance(value, ast.Constant) and value.value is False
        case ast.Attribute(attr=name) | ast.alias(name=name):
            return name in {"CERT_NONE", "_create_unverified_context"}
        case ast.Constant(value=str() as words):
            return words in {"check_hostname", "CERT_NONE", "--insecure", "-k"}
        case _:
            return False


@pytest.mark.parametrize(
    "offender",
    [
        "context.check_hostname = False",
        "context.verify_mode = ssl.CERT_NONE",
        "from ssl import CERT_NONE as LAX",
        "httpx.AsyncClient(verify=False)",
        "ssl._create_unverified_context()",
        "setattr(context, 'check_hostname', 0)",
        "run('curl', '--insecure', url)",
    ],
)
def test_the_rule_against_blind_trust_catches(offender):
    assert unverified(offender) == [1]


def test_whom_a_test_talks_to_is_verified_except_where_the_name_is_the_question():
    found = {path: unverified(path.read_text()) for path in python_tests()}
    one = ROOT / "tests/edge/rig.py"
    [line] = found.pop(one)
    named = [node for node in ast.parse(one.read_text()).body if isinstance(node, ast.FunctionDef)]
    [owner] = [node.name for node in named if node.lineno <= line <= (node.end_lineno or 0)]
    assert owner == "context_of_a_client_that_takes_any_name"
    assert {str(path): lines for path, lines in found.items() if lines} == {}
