"""``hub keys``: make a new signing key for the tenant."""

from pathlib import Path

import click

from hub.cli_run import run
from hub.node.keys import KINDS, new_signing_key


@click.group()
def keys() -> None:
    """Make the tenant's signing keys."""


@keys.command("new")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@click.option("--alg", type=click.Choice(sorted(KINDS)), default="PS256", show_default=True)
def keys_new(path: Path, alg: str) -> None:
    """Make a new private key in FILE (PEM, mode 0600; an existing file stays) and print its kid.

    Put the file first in [keys] signing and reload: the key is published at once and signs when everybody can know it
    (signing_key_wait_s, 20 minutes). Then the old one may leave the list; it stays published for a day.
    """

    def start() -> int:
        click.echo(new_signing_key(path, alg).kid)
        return 0

    run(start)
