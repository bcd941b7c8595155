"""The standalone binary: built, and run in a root that holds nothing but it and the C library."""

import os
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from bench.evidence import append
from tests.wire.world import free_base

pytestmark = pytest.mark.nightly

ROOT = Path(__file__).parent.parent.parent
LOADED = re.compile(r"=> (/\S+)|^\s*(/\S+ld-linux\S+)", re.MULTILINE)
START_S = 2.0


@pytest.fixture(scope="session")
def binary() -> Path:
    """Build the binary."""
    done = subprocess.run(
        ["./scripts/build"], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / "dist/hub"


@pytest.fixture(scope="session")
def empty_root(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root with the binary, the C library's files, ``localhost``, and nothing else."""
    root = tmp_path_factory.mktemp("root")
    for name in ("tmp", "etc", "dev", "proc"):
        (root / name).mkdir()
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    os.mknod(root / "dev/null", 0o666 | 0o020000, os.makedev(1, 3))
    shutil.copytree(binary, root / "hub")
    for path in libraries_of(binary):
        target = root / str(path).removeprefix("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        target.chmod(0o755)
    assert not [p for p in root.rglob("python*") if p.is_file() and os.access(p, os.X_OK)]
    return root


def libraries_of(binary: Path) -> set[Path]:
    """Return what the binary needs of this machine: the loader, the C library, and zlib for its own loader."""
    inside = {path.name for path in (binary / "_internal").rglob("*.so*")}
    needed: set[Path] = set()
    for path in [binary / "hub", *(binary / "_internal").rglob("*.so*")]:
        listed = subprocess.run(["ldd", path], capture_output=True, text=True).stdout
        found = [Path(one or two) for one, two in LOADED.findall(listed)]
        bundled = inside if path.name != "hub" else set()
        needed |= {p for p in found if p.name not in bundled and not p.is_relative_to(binary)}
    names = {path.name.partition(".so")[0] for path in needed}
    assert names <= {
        "libc",
        "libm",
        "libdl",
        "libpthread",
        "librt",
        "libresolv",
        "libutil",
        "libz",
        "ld-linux-x86-64",
    }
    return needed


def in_root(root: Path, *arguments: str) -> list[str]:
    """Return a command in the root, with ``/proc`` as on any machine; needs the rights of root."""
    apart = ["unshare", "--mount", "--pid", "--fork", f"--mount-proc={root / 'proc'}"]
    return [*apart, "/usr/sbin/chroot", str(root), "/hub/hub", *arguments]


def test_the_binary_completes_the_narrated_journey_without_python(empty_root):
    base = free_base()
    began = time.monotonic()
    done = subprocess.run(
        in_root(
            empty_root,
            "sandbox",
            "up",
            "--dir",
            "/tmp/s",
            "--port-base",
            str(base),
            "--exit-after-journey",
        ),
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": "/usr/bin:/usr/sbin"},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    append("binary-journey", {"runs": 1}, (), f"{time.monotonic() - began:.1f} s with keys made")


def test_the_binary_runs_the_sandbox_with_two_workers(empty_root):
    base = free_base()
    done = subprocess.run(
        in_root(
            empty_root,
            "sandbox",
            "up",
            "--dir",
            "/tmp/s2",
            "--port-base",
            str(base),
            "--exit-after-journey",
            "--workers",
            "2",
        ),
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": "/usr/bin:/usr/sbin"},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_hub_serve_is_ready_within_two_seconds(binary, sandbox, tmp_path):
    from tests.wire.own_hub import OwnHub, settings_beside

    hub = OwnHub(tmp_path / "hub", settings_beside(sandbox, tmp_path / "hub"))
    times, worked = [], []
    try:
        for _ in range(3):
            began = time.monotonic()
            hub.start(str(binary / "hub"))
            times.append(time.monotonic() - began)
            fields = Path(f"/proc/{hub.pid}/stat").read_text().rpartition(")")[2].split()
            worked.append((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
            address = f"http://127.0.0.1:{hub.settings['ops']['port']}/livez"
            assert urllib.request.urlopen(address, timeout=2).status == 200
            assert hub.stop() == 0
    finally:
        hub.stop()
    append(
        "binary-start",
        {"starts": len(times)},
        (),
        {"seconds": [round(t, 2) for t in times], "cpu": worked},
    )
    assert sorted(times)[1] < START_S, times
