"""``hub db``: back the tenant's state up while its Hub runs, check a backup, restore one."""

import itertools
from pathlib import Path
from typing import Final

import click

from hub.audit.log import CHECKPOINT
from hub.audit.note import Checkpoint, NoteError, Signer, split
from hub.audit.open import AUDIT, LOG, ReadLog, origin_of
from hub.audit.tiles import LogError
from hub.cli_run import FAILED, run
from hub.config import Settings, load
from hub.node.errors import StartError
from hub.protocol.merkle import EMPTY_ROOT
from hub.state.backup import OtherHistoryError, check_backup, copy_state, put_back
from hub.state.keeper import TreeHead
from hub.state.open import StoreError

_CONFIG: Final = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=Path(".sandbox/hub.toml"),
    show_default=True,
    metavar="FILE",
    help="The configuration of the Hub whose state it is.",
)


@click.group()
def db() -> None:
    """Back up and restore what a Hub remembers: consents, tokens, registrations and every event, in one file."""


@db.command()
@click.argument("target", type=click.Path(path_type=Path))
@_CONFIG
def backup(target: Path, path: Path) -> None:
    """Copy the state into the new file TARGET, as it is at one moment, while the Hub runs or not; then check the copy.

    Keep the audit folder (state/audit) too: a log that was published must not be continued from an older backup.
    """

    def start() -> int:
        folder = load(path).settings.state.folder
        try:
            copy_state(folder, target)
            head = check_backup(target)
        except StoreError as error:
            raise StartError(str(error)) from None
        click.echo(f"{target}: {head.size} events, root {head.root.hex()}, checked")
        return 0

    run(start)


@db.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def check(source: Path) -> None:
    """Check a backup: the database is whole, and its events lead to its tree's root."""

    def start() -> int:
        try:
            head = check_backup(source)
        except StoreError as error:
            click.echo(f"hub: {error}", err=True)
            return FAILED
        click.echo(f"{source}: {head.size} events, root {head.root.hex()}, whole")
        return 0

    run(start)


@db.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_CONFIG
@click.option(
    "--new-log", is_flag=True, help="Set the published log aside where it is ahead of the backup."
)
def restore(source: Path, path: Path, new_log: bool) -> None:
    """Put a backup in the place of the state of a stopped Hub; the old database is kept beside it.

    If the published log has more events than the backup, those are lost to the Hub but proved by the log: the Hub refuses
    to sign a second history. With --new-log the old log is set aside (keep it), and a new one begins under a new key:
    give keys.log a new file first.
    """

    def start() -> int:
        settings = load(path).settings
        folder = settings.state.folder
        try:
            head, apart = _judged(source, _published(folder), new_log=new_log)
            if apart:
                _check_new_key(settings)
            aside = put_back(source, folder)
        except StoreError as error:
            raise StartError(str(error)) from None
        if apart:
            (folder / AUDIT).rename(_unused(folder / f"{AUDIT}-until-{head.size}"))
        click.echo(f"restored {head.size} events; the state before is {aside or 'none'}")
        return 0

    run(start)


def _judged(source: Path, published: TreeHead, *, new_log: bool) -> tuple[TreeHead, bool]:
    """Return the backup's head, and whether the published log must be set aside.

    Raises:
        StartError: It must, and may not.
        StoreError: The backup is damaged.
    """
    try:
        head = check_backup(source, published)
        why = f"the published log has {published.size} events, the backup {head.size}"
        apart = published.size > head.size
    except OtherHistoryError as error:
        head, why, apart = check_backup(source), str(error), True
    if apart and not new_log:
        raise StartError(
            f"{why}: restore a newer backup of this tenant, or give keys.log a new key and --new-log"
        )
    return head, apart


def _unused(path: Path) -> Path:
    """Return the path, with a number where something is there: an earlier log stays."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(one for one in (path, *itertools.islice(numbered, 1000)) if not one.exists())


def _check_new_key(settings: Settings) -> None:
    """Refuse a second history under a key that has signed the first.

    Raises:
        StartError: One that is configured is such a key, or none.
    """
    known = ReadLog.read(settings.state.folder).vkey.split()
    for file in () if settings.keys.log is None else (settings.keys.log, *settings.log.retiring):
        try:
            signer = Signer.load(origin_of(settings.tenant.issuer), file.read_bytes())
        except (OSError, NoteError) as error:
            raise StartError(f"{file}: {error}") from None
        if signer.verifier.vkey() in known:
            raise StartError(
                f"{file}: has signed the published log and must sign no other history: "
                "expected a new key in keys.log, and log.retiring empty"
            )


def _published(folder: Path) -> TreeHead:
    if not (folder / AUDIT / LOG / CHECKPOINT).exists():
        return TreeHead(0, EMPTY_ROOT)
    try:
        head = Checkpoint.parse(split(ReadLog.read(folder).note)[0])
    except (LogError, NoteError) as error:
        raise StartError(str(error)) from None
    return TreeHead(head.size, head.root)
