"""How every command ends: what it raises becomes one line on standard error, and an exit status.

Exit codes: 0 done; 1 the thing asked for did not succeed (a journey was refused, a check found something);
2 the command line itself is wrong; 3 the configuration is wrong; 4 cannot start (a port in use, a folder not
writable, a second sandbox), or nobody is there to be asked; 130 interrupted.
"""

import errno
import sys
from collections.abc import Callable, Iterator
from typing import Final

import click

from hub.config import ConfigError
from hub.node.errors import StartError

FAILED: Final = 1
BAD_CONFIGURATION: Final = 3
CANNOT_START: Final = 4
INTERRUPTED: Final = 130


_FILES: Final = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EEXIST,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.ENOTEMPTY,
        errno.EPERM,
        errno.EROFS,
    }
)
"""What the machine's files may answer to a command that is right; everything else that is an OSError is a bug, and loud."""


def run(start: Callable[[], int]) -> None:
    """Run a command; turn what it raises into one line and an exit code."""
    code = FAILED
    try:
        code = start()
    except ConfigError as error:
        click.echo(f"hub: {error}", err=True)
        code = BAD_CONFIGURATION
    except StartError as error:
        click.echo(f"hub: {error}", err=True)
        code = CANNOT_START
    except KeyboardInterrupt:
        code = INTERRUPTED
    except (OSError, BaseExceptionGroup) as error:
        leaves = list(_leaves(error))
        if not all(_of_files(one) for one in leaves):
            raise
        click.echo(f"hub: {_line(leaves[0])}", err=True)
        code = CANNOT_START
    sys.exit(code)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for inner in error.exceptions:
        yield from _leaves(inner)


def _line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _of_files(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in _FILES
