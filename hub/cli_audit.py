"""``hub audit``: verify the audit log, prove single entries, search, trace, export. Each reading is itself an event.

The commands read the tenant's folder, whether its Hub runs or not. What a command reads is told to the running Hub,
which records it; without one, this process records it itself before it shows anything.
"""

from base64 import b64encode
from pathlib import Path
from time import monotonic
from typing import Any, Final

import click
import trio

from hub.audit import verify as offline
from hub.audit.note import Checkpoint, split
from hub.audit.open import ReadLog
from hub.audit.receipt import export as write_export
from hub.audit.receipt import receipt_of, receipts
from hub.audit.tiles import LogError, View
from hub.cli_audit_asked import selecting, selection_of, start_at, tell_if_more, told_of
from hub.cli_audit_reading import COMMANDS
from hub.cli_run import FAILED
from hub.node.errors import StartError
from hub.node.reading import Place, fits
from hub.node.retention import prune_log
from hub.node.wall import WallClock
from hub.protocol.merkle import consistency_proof
from hub.state.open import Reader, StoreError

_FILE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=Path(".sandbox/hub.toml"),
    show_default=True,
    metavar="FILE",
    help="The configuration of the Hub whose log it is.",
)
@click.pass_context
def audit(context: click.Context, path: Path) -> None:
    """Verify, prove and search the audit log of a Hub, running or not. Each reading is an event in it."""
    context.obj = path


@audit.command()
@click.option("--checkpoint", "kept", type=_FILE, multiple=True, help="A checkpoint kept earlier.")
@click.option("--since", type=_FILE, help="A checkpoint kept earlier: read from there on only.")
@click.option("--until", type=_FILE, help="A checkpoint kept earlier: read up to there only.")
@click.option(
    "--witness", multiple=True, metavar="KEY", help="Must have signed too: a key, or a file of one."
)
@click.pass_obj
def verify(
    path: Path,
    kept: tuple[Path, ...],
    since: Path | None,
    until: Path | None,
    witness: tuple[str, ...],
) -> None:
    """Recompute the whole tree from the entries and compare every file with it; exit status 1 if anything differs.

    With --checkpoint, also show that each is a beginning of the log: nothing was changed since it was signed.
    """

    def start(place: Place) -> int:
        place.record("verify", "")
        log, began = place.log(), monotonic()
        keys = [offline.Key.parse(one) for one in log.vkey.split()]
        try:
            report = offline.verify_log(
                log.tiles.folder,
                keys,
                witnesses=[offline.Key.parse(_text_of(one)) for one in witness],
                older=[(str(file), file.read_bytes()) for file in kept],
                since=since.read_bytes() if since else None,
                until=until.read_bytes() if until else None,
                live=True,
                progress=lambda at, size: click.echo(f"{at} of {size} entries", err=True),
            )
        except offline.RejectedError as error:
            click.echo(f"REJECTED {error}")
            return FAILED
        click.echo(f"{report.origin}: {report.size} entries, root {report.root.hex()}")
        click.echo(f"everything holds ({monotonic() - began:.1f} s)")
        for file in kept:
            click.echo(f"{file}: is a beginning of it")
        for remark in report.remarks:
            click.echo(f"note: {remark}")
        return place.read(lambda reader: fits(log, reader, click.echo))

    start_at(path, start)


def _text_of(key: str) -> str:
    try:
        return key if "+" in key else Path(key).read_text()
    except OSError as error:
        raise StartError(f"--witness {key}: {error.strerror}") from None


@audit.command()
@click.argument("interaction_id")
@click.option("--to", "target", type=click.Path(path_type=Path), help="A folder for the receipts.")
@click.pass_obj
def receipt(path: Path, interaction_id: str, target: Path | None) -> None:
    """Prove to anybody that an interaction is in the log: a receipt for each of its events.

    Check a receipt offline: python verify.py receipt FILE --key KEY; both lie in the state folder under audit/.
    """

    def start(place: Place) -> int:
        place.record("receipt", interaction_id)
        log = place.log()

        async def question(reader: Reader) -> int:
            found = await receipts(log, reader, interaction_id)
            for at, text in enumerate(found):
                _give(text, target and target / f"{interaction_id}-{at}.tlog-proof")
            tell_if_more(len(found))
            if not found:
                click.echo(
                    "hub: no published event of this interaction; new ones take a second", err=True
                )
            return 0 if found else FAILED

        return place.read(question)

    start_at(path, start)


def _give(text: str, file: Path | None) -> None:
    if file is None:
        click.echo(text, nl=False)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    click.echo(str(file))


@audit.command()
@click.option("--index", type=int, help="Prove that this entry is in the log.")
@click.option("--old", type=_FILE, help="Prove that the log goes on from this checkpoint.")
@click.pass_obj
def prove(path: Path, index: int | None, old: Path | None) -> None:
    """Print a proof under the newest checkpoint: inclusion of one entry, or consistency with an older checkpoint."""

    def start(place: Place) -> int:
        if (index is None) == (old is None):
            raise StartError("give either --index or --old")
        place.record("prove", str(index if old is None else old.name))
        log = place.log()
        try:
            if index is not None:
                click.echo(receipt_of(log.tiles, log.note, index), nl=False)
            elif old is not None:
                click.echo(_consistency(log, old.read_text()), nl=False)
        except (LogError, ValueError) as error:
            raise StartError(str(error)) from None
        return 0

    start_at(path, start)


def _consistency(log: ReadLog, older: str) -> str:
    size = Checkpoint.parse(split(older)[0]).size
    proof = consistency_proof(size, log.size, View(log.tiles, log.size).complete)
    return "".join(f"{b64encode(part).decode()}\n" for part in proof) + f"\n{log.note}"


@audit.command()
@click.argument("target", type=click.Path(path_type=Path))
@selecting
@click.pass_obj
def export(path: Path, /, target: Path, **asked: Any) -> None:
    """Write the selected events into a new folder TARGET, each with its proof, the key, the verifier and the format."""

    def start(place: Place) -> int:
        if target.exists():
            raise StartError(f"{target}: exists already; give the path of a new folder")
        place.record("export", told_of(asked))
        log = place.log()

        async def question(reader: Reader) -> int:
            count = await write_export(log, reader, await selection_of(reader, asked), target)
            click.echo(f"{count} event(s) with their proofs in {target}")
            return 0

        return place.read(question)

    start_at(path, start)


@audit.command()
@click.option(
    "--export",
    "target",
    type=click.Path(path_type=Path),
    required=True,
    help="A new folder for what will be forgotten, each event with its proof.",
)
@click.pass_obj
def prune(path: Path, target: Path) -> None:
    """Forget events older than [log] retain says, by kind; of a stopped Hub only. Their hashes stay: proofs still hold.

    What is forgotten is exported first, and the log itself declares how much was forgotten, up to where.
    """

    def start(place: Place) -> int:
        days = place.loaded.settings.log.retain
        if not days:
            raise StartError("log.retain says of no kind of event how many days to keep it")
        if target.exists():
            raise StartError(f"{target}: exists already; give the path of a new folder")
        failed: list[BaseException] = []
        count = 0
        try:
            count = trio.run(prune_log, place.loaded.settings, WallClock(), target)
        except* (StartError, StoreError, LogError, OSError) as group:
            failed += group.exceptions
        if failed:
            raise StartError(str(failed[0])) from None
        click.echo(f"{count} event(s) forgotten" + (f"; they are in {target}" if count else ""))
        return 0

    start_at(path, start)


for _one in COMMANDS:
    audit.add_command(_one)
