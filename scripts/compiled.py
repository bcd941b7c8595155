"""Compile the hot path with mypyc: as a build hook of the wheel, and as a program that makes a compiled copy of the checkout.

The Python files are the Hub. The modules that pyproject.toml lists for this hook are compiled as they are, as one group; an
extension module lies beside its ``.py`` file, has its name, and Python prefers it. Both do the same, and nobody needs a compiler.

Invariants:

- Nothing compiled is ever beside the sources of a checkout: a stale extension module would win over a changed ``.py`` file.
- A copy is used only if its stamp names what its sources are: they are mirrored after the extension modules of other sources
  are gone, and the stamp is written last.
- What cannot be compiled truly is refused by name, before anything is compiled.

    python scripts/compiled.py FOLDER    make FOLDER a compiled copy; quick if nothing changed; 3 where nothing can be compiled
"""

import ast
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # as a program it needs no hatchling
    BuildHookInterface = object  # type: ignore[assignment, misc]

sys.path.insert(0, str(Path(__file__).parent))  # whoever builds a wheel loads this file alone
from differences import objections

sys.path.pop(0)

STAMP: Final = ".compiled.json"
COPY: Final = "build/compiled"
"""Where the scripts have their copy; a wheel takes its extension modules from there if they are of the same sources."""
LIBRARY: Final = "hub.native"
"""Name of the group; mypyc appends ``__mypyc``."""
COPIED: Final = ("hub", "config", "bench", "tests", "scripts", ".ci")
NEEDED: Final = ["mypy>=2.4,<3", "setuptools>=65"]
NO_COMPILER: Final = 3
SETUP: Final = """
import sys
from mypyc.build import mypycify
from setuptools import setup
options = ["--config-file=", "--follow-imports=silent", "--ignore-missing-imports"]
options += ["--python-executable", sys.executable, *sys.argv[2:]]
group = mypycify(options, opt_level="2", debug_level="0", group_name=sys.argv[1])
for one in group:
    one.extra_compile_args.append("-Wno-error")  # what another compiler warns of is no error of ours
setup(name="hub", packages=[], ext_modules=group, script_args=["build_ext", "--inplace"])
"""


class Refused(Exception):  # noqa: N818 - it is an answer
    """What is asked cannot be done; the text says why and where."""


# What is compiled


def listed(root: Path) -> list[str]:
    """Return the modules that are compiled, as paths below ``root``."""
    settings = tomllib.loads((root / "pyproject.toml").read_text())
    hook = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]
    return list(hook["modules"])


def judge(root: Path, modules: Sequence[str]) -> None:
    """Refuse a list with a module that is not there, or that mypyc would compile into something else.

    Raises:
        Refused: For the first of them, with the reason.
    """
    for name in modules:
        path = root / name
        if not path.is_file():
            raise Refused(f"{name}: listed in pyproject.toml, but there is no such file")
        for line, reason in objections(path.read_text()):
            raise Refused(f"{name}:{line}: cannot be compiled: {reason}")


def imported(root: Path, modules: Sequence[str]) -> list[str]:
    """Return the modules that compiled modules import: who reads only Python cannot see them any more."""
    found: set[str] = set()
    for name in modules:
        for node in ast.walk(ast.parse((root / name).read_text())):
            match node:
                case ast.Import(names=names):
                    found |= {alias.name for alias in names}
                case ast.ImportFrom(module=str(module), level=0):
                    found.add(module)
                case _:
                    pass
    return sorted(found - {"__future__"})


# With what


def lacking() -> str:
    """Return why nothing can be compiled, or is not to be; empty if it can."""
    return "HUB_COMPILE=0" if asked() == "0" else missing() or unready()


def asked() -> str:
    """Return ``0`` if nothing is to be compiled, ``1`` if it must be, else nothing."""
    return os.environ.get("HUB_COMPILE", "")


def judge_asked() -> None:
    """Refuse what nobody would know the meaning of.

    Raises:
        Refused: ``HUB_COMPILE`` says neither.
    """
    if asked() not in {"", "0", "1"}:
        raise Refused(f"HUB_COMPILE={asked()}: expected 0, 1 or nothing")


def missing() -> str:
    """Return what the machine lacks to compile; empty if nothing."""
    said = os.environ.get("CC", "").strip() or sysconfig.get_config_var("CC") or "cc"
    try:
        compiler = shlex.split(said)[0]
    except ValueError:
        compiler = said
    if not shutil.which(compiler):
        return f"there is no C compiler here ({compiler})"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "Python's header files are not here (Debian: python3-dev)"
    return ""


def unready() -> str:
    """Return which package compiling needs and is not installed; empty if all are."""
    for name in ("mypy", "setuptools"):
        if not installed(name):
            return f"{name} is not installed here"
    return ""


def installed(name: str) -> str:
    """Return the version of an installed package; empty if it is not."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def digest(root: Path, modules: Sequence[str]) -> str:
    """Name what would be compiled and with what: sources, list, options, Python, mypy.

    A module that is not listed counts too: its types are compiled into those that are.
    """
    made = hashlib.sha256()
    with_what = (sys.version, sysconfig.get_config_var("SOABI"), installed("mypy"), SETUP, LIBRARY)
    made.update(json.dumps((*with_what, *modules)).encode())
    for path in sorted((root / "hub").rglob("*.py")):
        content = path.read_bytes()
        made.update(f"\0{path.relative_to(root)}\0{len(content)}\0".encode() + content)
    return made.hexdigest()


def compile_into(root: Path, modules: Sequence[str], folder: Path) -> list[str]:
    """Compile in a folder, which gets the sources too, and return the extension modules as paths below it.

    Raises:
        Refused: With the last lines of whoever failed.
    """
    shutil.copytree(
        root / "hub",
        folder / "hub",
        ignore=shutil.ignore_patterns("__pycache__", "*.so", "_config"),
    )
    process = subprocess.Popen(
        [sys.executable, "-c", SETUP, LIBRARY, *modules],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        told, _ = process.communicate()
    finally:
        if process.poll() is None:  # we are ended, and the compiler with us
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
    if process.returncode:
        raise Refused("compiling failed:\n" + "\n".join(told.splitlines()[-30:]))
    return extensions(folder)


def extensions(folder: Path) -> list[str]:
    """Return the extension modules below ``hub`` of a folder."""
    return sorted(str(path.relative_to(folder)) for path in (folder / "hub").rglob("*.so"))


# A copy of the checkout


def names(root: Path) -> list[str]:
    """Return the files of a checkout: what git tracks or would track; without git, what is in the folders that belong to it."""
    run = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    git = (root / ".git").exists() and shutil.which("git")
    told = (
        subprocess.run(run, cwd=root, capture_output=True, text=True, check=False) if git else None
    )
    if told and not told.returncode:
        found = {name for name in told.stdout.split("\0") if name}
    else:  # or git refuses: the checkout is another user's
        tops = [path for path in root.iterdir() if path.is_file() or path.name in COPIED]
        deep = [p for top in tops for p in ([top] if top.is_file() else top.rglob("*"))]
        found = {str(path.relative_to(root)) for path in deep if "__pycache__" not in path.parts}
    ours = (n for n in found if not n.endswith(".so") and not n.startswith(STAMP))
    return sorted(name for name in ours if (root / name).is_file())


def read_stamp(folder: Path) -> dict[str, Any]:
    """Return what a copy says of itself; nothing if it is none, or was not finished."""
    try:
        found = json.loads((folder / STAMP).read_text())  # noqa: TID251 - of our own
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_stamp(folder: Path, stamp: Mapping[str, Any]) -> None:
    """Write it, whole or not at all."""
    beside = folder / f"{STAMP}.new"
    beside.write_text(json.dumps(stamp, indent=1) + "\n")
    beside.replace(folder / STAMP)


def mirror(root: Path, folder: Path, wanted: Sequence[str], before: Sequence[str]) -> int:
    """Make the copy's files those of the checkout; return how many had to be written or removed."""
    gone = set(before) - set(wanted)
    for name in gone:
        (folder / name).unlink(missing_ok=True)
    changed = len(gone)
    for name in wanted:
        source, target = root / name, folder / name
        if target.is_file() and target.read_bytes() == source.read_bytes():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # it may be read-only, as its source is
        shutil.copy2(source, target)
        changed += 1
    return changed


def is_current(root: Path, folder: Path) -> bool:
    """Tell whether a folder is a compiled copy of what is here."""
    modules = listed(root)
    stamp = read_stamp(folder)
    whole = stamp.get("extensions") and contents(folder) == stamp["extensions"]
    return bool(whole and digest(root, modules) == stamp.get("digest"))


def contents(folder: Path) -> dict[str, str]:
    """Return the extension modules of a folder, each with what it holds: after a loss of power one may be empty."""
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in extensions(folder)
    }


def copy(root: Path, folder: Path) -> str:
    """Make a folder a compiled copy of the checkout; return what was done, in one line.

    Raises:
        Refused: Where it is somebody else's folder, the list is not good, or compiling failed.
    """
    if folder == root or folder in root.parents or (folder / ".git").exists():
        raise Refused(f"{folder} is a checkout or holds one: expected a folder of its own")
    if holder := holder_of(folder):
        raise Refused(f"{folder} lies in {holder}: expected a folder elsewhere, or below its build")
    if folder.exists() and not folder.is_dir():
        raise Refused(f"{folder} is a file: expected a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / f"{STAMP}.lock").exists():
        raise Refused(f"{folder} holds something else: expected an empty folder, or one made here")
    modules = listed(root)
    judge(root, modules)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{STAMP}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _copy(root, folder, modules)


def holder_of(folder: Path) -> Path | None:
    """Return the checkout, or the other copy, that a folder would become a part of; None below its build, or for none."""
    nearest = next((p for p in folder.parents if (p / "scripts/compiled.py").is_file()), folder)
    return None if nearest == folder or nearest / "build" in folder.parents else nearest


def _copy(root: Path, folder: Path, modules: Sequence[str]) -> str:
    stamp, now, current = read_stamp(folder), digest(root, modules), is_current(root, folder)
    (folder / STAMP).unlink(missing_ok=True)
    if not current:
        remove(folder)
    wanted = names(root)
    before = stamp.get("files") or names(folder)
    changed = mirror(root, folder, wanted, before)
    link_environment(root / ".venv", folder / ".venv")
    if digest(folder, modules) != now:
        raise Refused("the sources changed meanwhile; once more, please")
    if not current:
        with tempfile.TemporaryDirectory(prefix="hub-compiled-") as place:
            for name in compile_into(folder, modules, Path(place)):
                shutil.copy2(Path(place, name), folder / name)
    stamp = {"digest": now, "modules": list(modules), "imports": imported(root, modules)}
    write_stamp(folder, {**stamp, "extensions": contents(folder), "files": wanted})
    what = "nothing compiled anew" if current else f"{len(modules)} modules compiled"
    return f"{folder}: {what}, {changed} files brought"


def link_environment(theirs: Path, ours: Path) -> None:
    """Lend the copy the environment of its checkout, which may have been moved."""
    if ours.is_symlink() and ours.readlink() != theirs:
        ours.unlink()
    if theirs.is_dir() and not ours.is_symlink() and not ours.exists():
        ours.symlink_to(theirs)


def remove(folder: Path) -> None:
    """Remove the extension modules of a copy."""
    for name in extensions(folder):
        (folder / name).unlink()


# The hook of the wheel


class CompiledWheel(BuildHookInterface):  # type: ignore[misc, type-arg]
    """Put the extension modules beside the Python files in the wheel, where there is a compiler.

    ``HUB_COMPILE=0`` leaves them out, ``HUB_COMPILE=1`` makes an error of everything that would leave them out.
    """

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Return what compiling needs: the compiler, and our own packages for their types."""
        if asked() == "0" or missing():
            return []
        return [*NEEDED, *self.metadata.core.dependencies]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and name what is to be in the wheel."""
        self._place: tempfile.TemporaryDirectory[str] | None = None
        if version == "editable" and asked() == "1":
            self.app.abort("HUB_COMPILE=1, but what is editable is the checkout itself")
        if version == "editable":
            return
        root, modules = Path(self.root), self.config["modules"]
        try:
            judge_asked()
            judge(root, modules)
        except Refused as error:
            self.app.abort(f"compiled: {error}")
        try:
            folder, made = self._made(root, modules)
        except (Refused, OSError) as error:
            if asked() == "1":
                self.app.abort(f"HUB_COMPILE=1, but {error}")
            self.app.display_info(f"a wheel of Python only: {error}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update({str(folder / name): name for name in made})
        self.app.display_info(f"a compiled wheel: {len(modules)} modules")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was made on the way."""
        del version, build_data, artifact_path
        if self._place is not None:
            self._place.cleanup()

    def _made(self, root: Path, modules: Sequence[str]) -> tuple[Path, list[str]]:
        """Return where the extension modules are: of a copy that is current, or made now."""
        if lack := lacking():
            raise Refused(lack)
        for folder in (root, root / COPY):
            if is_current(root, folder):
                return folder, extensions(folder)
        self._place = tempfile.TemporaryDirectory(prefix="hub-compiled-")
        folder = Path(self._place.name)
        return folder, compile_into(root, modules, folder)


def main(given: Sequence[str]) -> int:
    """Make a copy; return the exit status."""
    if len(given) != 1 or given[0].startswith("-"):
        sys.stderr.write("compiled: expected one FOLDER\n")
        return 2
    root, folder = Path(__file__).resolve().parents[1], Path(given[0]).resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        judge_asked()
        lack = lacking()
        told = "" if lack else copy(root, folder)
    except (Refused, OSError) as error:
        sys.stderr.write(f"compiled: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    sys.stderr.write((told or f"nothing is compiled: {lack}") + "\n")
    return 0 if told else 1 if asked() == "1" else NO_COMPILER


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
