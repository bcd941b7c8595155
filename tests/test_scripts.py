"""The scripts say in one line what is missing, and change nothing when they cannot go on."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def checkout(tmp_path) -> Path:
    """Copy what the scripts need into an empty checkout."""
    shutil.copytree(ROOT / "scripts", tmp_path / "checkout" / "scripts")
    return tmp_path / "checkout"


def programs(folder: Path, **fakes: str) -> str:
    """Make a PATH of the usual small programs and these fakes; return it."""
    folder.mkdir()
    for name in ("bash", "sh", "dirname", "basename", "cat", "cksum", "head", "rm", "grep", "env"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    for name, text in fakes.items():
        program = folder / name.replace("_", "-")
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    return str(folder)


def started(checkout: Path, path: str, script: str = "sandbox") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(checkout / "scripts" / script)],
        env={"PATH": path, "HOME": str(checkout)},
        capture_output=True,
        text=True,
        timeout=60,
    )


OLD = 'case "$1" in -c) exit 1 ;; -V) echo Python 3.9.2 ;; esac; exit 1'
NO_VENV = """case "$*" in
  *venv*) exit 1 ;;
  -V) echo Python 3.11.2 ;;
  *sys.exit*) exit 0 ;;
  *version_info*) echo 3.11 ;;
esac"""


@pytest.mark.parametrize("fakes", [{}, {"python3": OLD}], ids=["none", "too_old"])
def test_without_a_new_enough_python_one_line_says_so(checkout, tmp_path, fakes):
    done = started(checkout, programs(tmp_path / "bin", **fakes))
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (checkout / ".venv").exists()


def test_without_venv_a_user_is_told_the_one_line_that_installs_it(checkout, tmp_path):
    path = programs(
        tmp_path / "bin", python3=NO_VENV, id="echo 1000", dpkg_query="exit 1", apt_get="exit 9"
    )
    done = started(checkout, path)
    assert done.returncode == 1
    assert "sudo apt-get install python3-venv" in done.stderr
    assert not (checkout / ".venv").exists()


def test_without_venv_root_installs_it(checkout, tmp_path):
    path = programs(
        tmp_path / "bin",
        python3=NO_VENV,
        id="echo 0",
        dpkg_query="exit 1",
        apt_get=f'echo "$@" >> {tmp_path}/asked; exit 0',
    )
    done = started(checkout, path)
    assert "python3-venv" in (tmp_path / "asked").read_text()
    assert done.returncode == 1, "this Python cannot make a venv even then, and the script says so"
    assert "cannot make .venv" in done.stderr


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "moved"])
def test_an_environment_that_was_made_for_another_folder_is_made_anew(
    checkout, tmp_path, elsewhere
):
    place = tmp_path / "elsewhere" if elsewhere else checkout.resolve()
    mine = checkout / ".venv/bin"
    mine.mkdir(parents=True)
    (mine / "hub").write_text(f'#!/bin/sh\nexec "{place}/.venv/bin/python" -m hub "$@"\n')
    done = started(checkout, programs(tmp_path / "bin", python3=NO_VENV, id="echo 1000"))
    assert ("moved or copied: .venv is made anew" in done.stderr) == elsewhere
    assert done.returncode == 1, "this Python cannot make a venv"


def test_an_environment_that_is_a_link_is_used_and_left_as_it_is(checkout, tmp_path):
    lent = tmp_path / "lent/bin"
    lent.mkdir(parents=True)
    (lent / "hub").write_text("of another checkout")
    (lent / "python").write_text('#!/bin/sh\necho "asked: $@"\n')
    (lent / "python").chmod(0o755)
    (checkout / ".venv").symlink_to(tmp_path / "lent")
    done = started(checkout, programs(tmp_path / "bin", python3=NO_VENV, id="echo 1000"))
    assert done.stdout == "asked: -m hub sandbox up\n", done.stderr
    assert (checkout / ".venv").is_symlink()
    assert [path.name for path in sorted(lent.iterdir())] == ["hub", "python"]


def test_the_test_script_demands_the_official_documents_when_asked(checkout, tmp_path):
    environment = {**os.environ, "HUB_SPECS": str(tmp_path / "nowhere")}
    done = subprocess.run(
        [str(checkout / "scripts" / "test"), "--need-specs"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "HUB_SPECS" in done.stderr
    assert not (checkout / ".venv").exists()
