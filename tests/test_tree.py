"""The house rules that a machine can check: captions, sizes, names, and nothing that does not belong into the open."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "hub").rglob("*.py"))
TRACKED = subprocess.run(
    ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False, text=True
).stdout.split("\0")


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
    assert len(locks) == 4
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
