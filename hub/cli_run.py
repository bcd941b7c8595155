"""How every command ends: what it raises becomes one line on standard error, and an exit status.

Exit codes: 0 done; 1 the thing asked for did not succeed (a journey was refused, a check found something);
2 the command line itself is wrong; 3 the configuration is wrong; 4 cannot start (a port in use, a folder not
writable, a second sandbox), or nobody is there to be asked; 130 interrupted.
"""

import sys
from collections.abc import Callable
from typing import Final

import click

from hub.config import ConfigError
from hub.node.errors import StartError

FAILED: Final = 1
BAD_CONFIGURATION: Final = 3
CANNOT_START: Final = 4
INTERRUPTED: Final = 130


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
    sys.exit(code)
