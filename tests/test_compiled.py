"""What is compiled is what was listed, from the sources as they are, and never lies in a checkout."""

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from bench.build import LIBRARY, build_of
from bench.evidence import STAMP

ROOT = Path(__file__).parent.parent
IS_COPY = (ROOT / STAMP).is_file()


def load(root: Path = ROOT) -> ModuleType:
    path = root / "scripts/compiled.py"
    found = importlib.util.spec_from_file_location("compiled", path)
    assert found
    assert found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


compiled = load()
LISTED = compiled.listed(ROOT)


def checkout(folder: Path, text: str = "ONE = 1\n") -> Path:
    """Make a small checkout whose one listed module holds this text."""
    for name in ("hub", "scripts", "config"):
        (folder / name).mkdir(parents=True)
    (folder / "hub/__init__.py").touch()
    (folder / "hub/one.py").write_text(text)
    (folder / "hub/other.py").write_text("TWO = 2\n")
    (folder / "config/limits.toml").write_text("a = 1\n")
    for name in ("compiled.py", "differences.py"):
        (folder / "scripts" / name).write_bytes((ROOT / "scripts" / name).read_bytes())
    hook = "[tool.hatch.build.targets.wheel.hooks.custom]\nmodules = ['hub/one.py']\n"
    (folder / "pyproject.toml").write_text(hook)
    return folder


class Compiler:
    """Stand in for mypyc and the C compiler: an empty extension module for each module."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, root: Path, modules: list[str], folder: Path) -> list[str]:
        self.runs += 1
        for name in modules:
            made = folder / name.replace(".py", ".so")
            made.parent.mkdir(parents=True, exist_ok=True)
            made.write_text((root / name).read_text())
        return compiled.extensions(folder)


@pytest.fixture
def compiler(monkeypatch) -> Compiler:
    made = Compiler()
    monkeypatch.setattr(compiled, "compile_into", made)
    return made


# What runs here


def test_the_listed_modules_are_extension_modules_in_a_compiled_copy_and_nowhere_else():
    assert IS_COPY or os.environ.get("HUB_TESTED") != "compiled", "the copy is none"
    for name in LISTED:
        module = importlib.import_module(name.removesuffix(".py").replace("/", "."))
        assert module.__file__
        assert Path(module.__file__).is_relative_to(ROOT)
        assert module.__file__.endswith(".so" if IS_COPY else ".py"), name
    assert bool(list((ROOT / "hub").rglob("*.so"))) == IS_COPY
    assert build_of([os.getpid()]) == ("compiled" if IS_COPY else "pure")
    assert (LIBRARY in Path("/proc/self/maps").read_text()) == IS_COPY


def test_programs_that_tests_start_run_the_same_hub():
    code = "import hub.protocol.h2; print(hub.protocol.h2.__file__)"
    run = [sys.executable, "-c", code]
    told = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    assert Path(told).parent == ROOT / "hub/protocol"
    assert told.endswith(".so" if IS_COPY else ".py")


def test_every_listed_module_is_there_and_can_be_compiled():
    compiled.judge(ROOT, LISTED)
    assert len(set(LISTED)) == len(LISTED)


# What is refused


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("class A(msgspec.Struct, frozen=True): ...", "A is a msgspec.Struct"),
        ("class A(Struct): ...", "A is a msgspec.Struct"),
        ("class A(Record, kw_only=True): ...", "keywords of class A"),
        ("class A(NamedTuple):\n    a: int", "A is a NamedTuple"),
        ("class A(typing.NamedTuple):\n    a: int", "A is a NamedTuple"),
        ("async def rows():\n    yield 1", "rows is an async generator"),
        ("class A:\n    async def rows(self):\n        if self:\n            yield 1", "rows"),
        ("class A(Exception):\n    status = 413", "fields of class A"),
        ("class A(Exception): ...\nclass B(A):\n    status: int = 413", "fields of class B"),
        (
            "async def one(a):\n    try:\n        f()\n    finally:\n        if a:\n            await a",
            "finally",
        ),
        (
            "async def one(a):\n    try:\n        f()\n    finally:\n        async with a:\n            f()",
            "finally",
        ),
        (
            "async def one(a):\n    try:\n        f()\n    finally:\n        g([b async for b in a])",
            "finally",
        ),
        (
            "def rows():\n    try:\n        f()\n    except E:\n        yield 1",
            "a yield in an except",
        ),
        (
            "def rows():\n    try:\n        f()\n    finally:\n        yield 1",
            "a yield in an except",
        ),
        ("async def one(a):\n    return [next(a) for _ in a]", "next() without a default in one"),
        (
            "def one():\n    try:\n        two()\n    except A as e:\n        pass\n    except B as e:\n        pass",
            "e is A and B in one",
        ),
        (
            "async def one(a):\n    async for b in a:\n        two(b)\n        del b",
            "a del in a coroutine",
        ),
        ("class A:\n    def __init__(self):\n        self._thread = 1", "_thread"),
        ("class A:\n    def __init__(self):\n        self._thread: int = 1", "_thread"),
        ("class A:\n    _thread: int", "_thread"),
        ("class A:\n    def __len__(self):\n        return 0", "A has a length"),
        ("class A:\n    all: list[int] = []", "a field of class A that all share"),
        ("class A:\n    lock = Lock()", "a field of class A that all share"),
        ("class A:\n    def __next__(self):\n        return 0", "__next__"),
        ("class A:\n    def __contains__(self, one):\n        return True", "__contains__"),
        ("def rows(a):\n    yield next(a)", "next() without a default in rows"),
        ("def rows(a):\n    yield 1\n    raise StopIteration", "a StopIteration in rows"),
        ("async def one(a):\n    raise StopIteration(a)", "a StopIteration in one"),
        ("def one(a):\n    match a:\n        case (b, *_):\n            return b", "a star"),
        ("def one(n):\n    for a in range(1, n):\n        n -= a", "a range"),
    ],
)
def test_what_mypyc_would_change_or_not_compile_is_refused(tmp_path, text, reason):
    with pytest.raises(compiled.Refused, match=re.escape(reason)) as refused:
        compiled.judge(checkout(tmp_path / "a", text), ["hub/one.py"])
    assert str(refused.value).startswith("hub/one.py:")


def test_a_listed_module_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(compiled.Refused, match="there is no such file"):
        compiled.judge(checkout(tmp_path / "a"), ["hub/gone.py"])


@pytest.mark.parametrize(
    "text",
    [
        "def rows():\n    try:\n        yield 1\n    except E:\n        f()\n    finally:\n        g(lambda: (yield))",
        "async def one():\n    def rows():\n        yield 1\n    return list(rows())",
        "class A(Protocol, metaclass=M): ...",
        "class A(Exception):\n    __slots__ = ()\n    status: int",
        "class A(StrEnum):\n    NO = 'no'\n    YES = auto()",
        "class A:\n    all: ClassVar[list[int]] = []\n    most = 5\n    __slots__ = ('a',)",
        "async def one(a):\n    try:\n        await a\n    except E:\n        await a\n    finally:\n        f()",
        "async def one(a):\n    return next(a, None)",
        "def one(a):\n    return next(a)",
        "def one(a):\n    return [b for b in range(len(a)) if next(a)]",
        "class A:\n    async def __anext__(self):\n        raise StopAsyncIteration",
        "class A:\n    def __len__(self):\n        return 0\n    def __bool__(self):\n        return True",
        "def one(n):\n    for a in range(1, n):\n        b = n + a",
        "thread = 1\ndef f(a):\n    return a._thread",
    ],
)
def test_what_can_be_compiled_is_not_refused(text):
    assert list(compiled.objections(text)) == []


# The copy


def test_a_copy_is_made_and_a_second_time_nothing_is_compiled(tmp_path, compiler):
    root, folder = checkout(tmp_path / "a"), tmp_path / "b"
    assert "1 modules compiled" in compiled.copy(root, folder)
    assert (folder / "config/limits.toml").is_file()
    assert compiled.extensions(folder) == ["hub/one.so"]
    assert compiled.extensions(root) == []
    assert "nothing compiled anew, 0 files brought" in compiled.copy(root, folder)
    assert compiler.runs == 1


@pytest.mark.parametrize("name", ["hub/one.py", "hub/other.py"])
def test_a_changed_source_is_compiled_anew_also_one_whose_types_only_are_used(
    tmp_path, compiler, name
):
    root, folder = checkout(tmp_path / "a"), tmp_path / "b"
    compiled.copy(root, folder)
    (root / name).write_text("THREE = 3\n")
    assert not compiled.is_current(root, folder)
    compiled.copy(root, folder)
    assert compiler.runs == 2
    assert (folder / name).read_text() == "THREE = 3\n"
    assert (folder / "hub/one.so").read_text() == (root / "hub/one.py").read_text()


def test_what_is_no_source_is_brought_without_compiling_and_what_is_gone_goes(tmp_path, compiler):
    root, folder = checkout(tmp_path / "a"), tmp_path / "b"
    (root / "config/old.toml").touch()
    compiled.copy(root, folder)
    (root / "config/limits.toml").write_text("a = 2\n")
    (root / "config/old.toml").unlink()
    compiled.copy(root, folder)
    assert compiler.runs == 1
    assert (folder / "config/limits.toml").read_text() == "a = 2\n"
    assert not (folder / "config/old.toml").exists()


def test_a_copy_whose_compiling_fails_has_no_extension_module_of_earlier_sources(
    tmp_path, compiler, monkeypatch
):
    root, folder = checkout(tmp_path / "a"), tmp_path / "b"
    compiled.copy(root, folder)
    (root / "hub/one.py").write_text("THREE = 3\n")

    def fails(*_: object) -> list[str]:
        raise compiled.Refused("compiling failed")

    monkeypatch.setattr(compiled, "compile_into", fails)
    with pytest.raises(compiled.Refused, match="compiling failed"):
        compiled.copy(root, folder)
    assert compiled.extensions(folder) == []
    assert not compiled.is_current(root, folder)


def test_somebody_elses_folder_is_refused_and_left_alone(tmp_path, compiler):
    root, folder = checkout(tmp_path / "a"), tmp_path / "b"
    folder.mkdir()
    (folder / "letter").touch()
    with pytest.raises(compiled.Refused, match="holds something else"):
        compiled.copy(root, folder)
    assert [path.name for path in folder.iterdir()] == ["letter"]
    for holder in (root, tmp_path):
        with pytest.raises(compiled.Refused, match="a folder of its own"):
            compiled.copy(root, holder)
    with pytest.raises(compiled.Refused, match="letter is a file: expected a folder"):
        compiled.copy(root, folder / "letter")
    assert compiler.runs == 0


def test_a_folder_within_a_checkout_or_another_copy_is_refused_and_not_made(tmp_path, compiler):
    root, folder = checkout(tmp_path / "a"), tmp_path / "b"
    compiled.copy(root, folder)
    another = checkout(tmp_path / "c")
    for within in (
        root / "hub/sub",
        root / "build",
        root / "other",
        folder / "hub/sub",
        another / "x",
    ):
        with pytest.raises(
            compiled.Refused, match="expected a folder elsewhere, or below its build"
        ):
            compiled.copy(root, within)
        assert not within.exists()
    assert compiled.copy(root, root / "build/compiled")
    nested = checkout(root / ".trees/c")
    assert compiled.copy(nested, nested / "build/compiled")
    assert compiler.runs == 3


def test_an_extension_module_that_is_not_what_was_made_is_made_anew(tmp_path, compiler):
    root, folder = checkout(tmp_path / "a"), tmp_path / "b"
    compiled.copy(root, folder)
    (folder / "hub/one.so").write_bytes(b"")  # a loss of power
    assert not compiled.is_current(root, folder)
    compiled.copy(root, folder)
    assert compiler.runs == 2
    assert (folder / "hub/one.so").stat().st_size


def test_a_moved_checkout_has_its_copy_still(tmp_path, compiler):
    root = checkout(tmp_path / "a")
    (root / ".venv").mkdir()
    compiled.copy(root, root / "build/compiled")
    root = root.rename(tmp_path / "moved")
    compiled.copy(root, root / "build/compiled")
    assert (root / "build/compiled/.venv").resolve() == (root / ".venv").resolve()
    assert compiler.runs == 1


def test_a_read_only_file_is_brought_again_and_a_folder_takes_the_place_of_a_file(
    tmp_path, compiler
):
    root, folder = checkout(tmp_path / "a"), tmp_path / "b"
    limits = root / "config/limits.toml"
    limits.chmod(0o444)
    compiled.copy(root, folder)
    (tmp_path / "before").hardlink_to(folder / "config/limits.toml")
    limits.unlink()
    limits.write_text("a = 2\n")
    compiled.copy(root, folder)
    assert (tmp_path / "before").read_text() == "a = 1\n", "it was written into"
    limits.unlink()
    limits.mkdir()
    (limits / "b").touch()
    compiled.copy(root, folder)
    assert (folder / "config/limits.toml/b").is_file()


def test_a_checkout_that_git_does_not_read_is_copied_as_without_git(tmp_path):
    root = checkout(tmp_path / "a")
    (root / ".git").mkdir()  # git says that this is none, as it does of another user's
    assert "hub/one.py" in compiled.names(root)


def test_the_stamp_names_what_compiled_modules_import(tmp_path, compiler):
    root = checkout(tmp_path / "a", "import trio\nfrom httptools import HttpRequestParser\n")
    compiled.copy(root, tmp_path / "b")
    assert json.loads((tmp_path / "b" / STAMP).read_text())["imports"] == ["httptools", "trio"]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"CC": "no-such-compiler -pthread"}, "there is no C compiler here (no-such-compiler)"),
        ({"CC": "'no such' -m64"}, "there is no C compiler here (no such)"),
        ({"CC": "'no such"}, "there is no C compiler here ('no such)"),
        ({"HUB_COMPILE": "0"}, "HUB_COMPILE=0"),
    ],
)
def test_where_nothing_is_compiled_the_program_says_why_in_one_line(tmp_path, settings, reason):
    root = checkout(tmp_path / "a")
    program = [sys.executable, str(root / "scripts/compiled.py"), str(tmp_path / "b")]
    environment = {**os.environ, **settings}
    done = subprocess.run(program, env=environment, capture_output=True, text=True)
    assert done.returncode == compiled.NO_COMPILER
    assert done.stderr == f"nothing is compiled: {reason}\n"
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"HUB_COMPILE": "1", "CC": "no-such-compiler"},
            "nothing is compiled: there is no C compiler here (no-such-compiler)\n",
        ),
        ({"HUB_COMPILE": "off"}, "compiled: HUB_COMPILE=off: expected 0, 1 or nothing\n"),
    ],
)
def test_what_was_asked_for_and_cannot_be_done_is_one_line_and_no_success(tmp_path, settings, told):
    root = checkout(tmp_path / "a")
    program = [sys.executable, str(root / "scripts/compiled.py"), str(tmp_path / "b")]
    environment = {**os.environ, **settings}
    done = subprocess.run(program, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == told


@pytest.mark.parametrize(
    ("ended_by", "status", "told"),
    [
        (
            OSError(28, "No space left on device"),
            1,
            "compiled: [Errno 28] No space left on device\n",
        ),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_a_full_disk_or_an_interrupt_ends_the_program_without_a_trace(
    tmp_path, monkeypatch, capsys, ended_by, status, told
):
    def copy(*_: object) -> str:
        raise ended_by

    monkeypatch.setattr(compiled, "copy", copy)
    monkeypatch.setattr(compiled, "lacking", str)
    monkeypatch.setattr(compiled.signal, "signal", lambda *_: None)
    assert compiled.main([str(tmp_path)]) == status
    assert capsys.readouterr().err == told


def test_a_blank_compiler_is_pythons_own(monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    expected = compiled.missing()
    monkeypatch.setenv("CC", " ")
    assert compiled.missing() == expected


def test_without_git_what_belongs_to_a_checkout_is_copied_and_nothing_else(tmp_path):
    root = checkout(tmp_path / "a")
    for name in (".venv", ".sandbox", "hub/__pycache__"):
        (root / name).mkdir()
        (root / name / "thing").touch()
    (root / "hub/one.so").touch()
    assert compiled.names(root) == [
        "config/limits.toml",
        "hub/__init__.py",
        "hub/one.py",
        "hub/other.py",
        "pyproject.toml",
        "scripts/compiled.py",
        "scripts/differences.py",
    ]


def test_an_editable_wheel_is_the_checkout_and_cannot_be_compiled(tmp_path):
    target = ["-t", "wheel:editable", "-d", str(tmp_path)]
    build = [sys.executable, "-m", "hatchling", "build", *target]
    environment = {**os.environ, "HUB_COMPILE": "1"}
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "HUB_COMPILE=1, but what is editable is the checkout itself" in done.stderr


@pytest.mark.parametrize(("asked", "status"), [("", 0), ("0", 0), ("1", 1), ("no", 1)])
def test_a_wheel_without_a_compiler_is_of_python_only_unless_it_was_asked_for(
    tmp_path, asked, status
):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    environment = {**os.environ, "CC": "no-such-compiler", "HUB_COMPILE": asked}
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    [told] = [line for line in done.stderr.splitlines() if "HUB_COMPILE" in line or "only" in line]
    assert ("of Python only" in told) == (status == 0)
    wheels = [path.name for path in tmp_path.glob("*.whl")]
    assert wheels == (["api_hub-0.1.0-py3-none-any.whl"] if status == 0 else [])
