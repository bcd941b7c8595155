"""The entry of the standalone binary: ``hub``, and what ``python -m hub.…`` would run for the processes that hub starts.

The program starts parts of itself as ``sys.executable -m hub.…`` and the audit log's verifier as
``sys.executable -I …/verify.py``. In the binary, ``sys.executable`` is the binary: those two forms are understood here, and no
other.
"""

import runpy
import sys


def main() -> None:
    """Run what the arguments ask for."""
    form, name = sys.argv[1:2], "".join(sys.argv[2:3])
    if form == ["-m"] and name.startswith("hub."):
        del sys.argv[1:3]
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    elif form == ["-I"] and name.endswith("/verify.py"):
        del sys.argv[1:2]
        sys.argv = sys.argv[1:]
        runpy.run_path(name, run_name="__main__")
    else:
        from hub.cli import main as command  # noqa: PLC0415 - the other two need none of it

        command(prog_name="hub")


if __name__ == "__main__":
    main()
