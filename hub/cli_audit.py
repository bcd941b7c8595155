"""``hub audit``: verify the audit log, prove single entries, search, trace, export. Each reading is itself an event.

The commands read the tenant's folder, whether its Hub runs or not. What a command reads is told to the running Hub,
which records it; without one, this process records it itself before it shows anything.
"""

import csv
import json
import sys
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final, cast

import click
import msgspec
import trio

from hub.audit import verify as offline
from hub.audit.index import Index, open_index
from hub.audit.note import Checkpoint, split
from hub.audit.open import ReadLog
from hub.audit.pages import tell_pages
from hub.audit.receipt import export as write_export
from hub.audit.receipt import receipt_of, receipts
from hub.audit.reports import Period, availability_table, table
from hub.audit.search import Selection, event_of, search, tail
from hub.audit.tiles import LogError, View
from hub.audit.trace import told
from hub.authz.explanations import explain
from hub.cli_run import FAILED, run
from hub.model.event import Event, Kind
from hub.node.errors import StartError
from hub.node.reading import Place, fits
from hub.node.retention import prune_log
from hub.node.wall import WallClock
from hub.protocol.merkle import consistency_proof
from hub.state.keeper import Keeper, Query
from hub.state.open import Reader, StoreError
from hub.state.outages import outages

_FILE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)
_ONE_PAGE: Final = 1000


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


def _run(path: Path, start: Callable[[Place], int]) -> None:
    run(lambda: start(Place(path)))


@audit.command()
@click.option("--checkpoint", "kept", type=_FILE, multiple=True, help="A checkpoint kept earlier.")
@click.option("--since", type=_FILE, help="A checkpoint kept earlier: read from there on only.")
@click.option(
    "--witness", multiple=True, metavar="KEY", help="Must have signed too: a key, or a file of one."
)
@click.pass_obj
def verify(
    path: Path, kept: tuple[Path, ...], since: Path | None, witness: tuple[str, ...]
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

    _run(path, start)


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
            if not found:
                click.echo(
                    "hub: no published event of this interaction; new ones take a second", err=True
                )
            return 0 if found else FAILED

        return place.read(question)

    _run(path, start)


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

    _run(path, start)


def _consistency(log: ReadLog, older: str) -> str:
    size = Checkpoint.parse(split(older)[0]).size
    proof = consistency_proof(size, log.size, View(log.tiles, log.size).complete)
    return "".join(f"{b64encode(part).decode()}\n" for part in proof) + f"\n{log.note}"


def _moment(text: str) -> int:
    """Read a date or time of UTC as milliseconds; empty is 0."""
    if not text:
        return 0
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r}: expected 2026-11-22 or 2026-11-22T10:00:00+04:00"
        ) from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def _selecting(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that select events."""
    for name, help_text in (
        ("--verdict", "allowed, refused, failed or unknown."),
        ("--route", "Of this route, as in account-information.accounts."),
        ("--customer", "Of the consents of this customer (the bank's userId)."),
        ("--tpp", "Of this TPP: a client id or an organisation id."),
        ("--consent", "Of this consent."),
        ("--interaction", "Of this interaction."),
        ("--to", "Before this date or time (UTC)."),
        ("--from", "From this date or time (UTC) on."),
    ):
        parameter = {"--from": "since", "--to": "until"}.get(name, name[2:])
        command = click.option(name, parameter, default="", help=help_text)(command)
    return click.option("--status", type=int, default=0, help="Answered with this status.")(command)


async def _selection(reader: Reader, asked: dict[str, Any]) -> Selection:
    """Turn options into a selection; a customer into the consents that the bank says are the customer's."""
    consents: frozenset[str] = frozenset()
    if asked["customer"]:
        query = Query(kind="consent", where=(("psu", asked["customer"]),), limit=_ONE_PAGE)
        page = await reader.search(query)
        consents = frozenset(item.record.key for item in page.items) or frozenset({"-"})
    return Selection(
        start_ms=_moment(asked["since"]),
        end_ms=_moment(asked["until"]),
        consent_id=asked["consent"],
        consent_ids=consents,
        tpp=asked["tpp"],
        interaction_id=asked["interaction"],
        route=asked["route"],
        verdict=asked["verdict"],
        status=asked["status"],
    )


def _told(asked: dict[str, Any]) -> str:
    """Return what an event says of a selection: names of what was asked for; a customer only as asked for."""
    shown = {name: value for name, value in asked.items() if value and name != "customer"}
    return ",".join(
        [*(f"{n}={v}" for n, v in shown.items()), *(["customer"] * bool(asked["customer"]))]
    )


@audit.command()
@click.argument("target", type=click.Path(path_type=Path))
@_selecting
@click.pass_obj
def export(path: Path, /, target: Path, **asked: Any) -> None:
    """Write the selected events into a new folder TARGET, each with its proof, the key, the verifier and the format."""

    def start(place: Place) -> int:
        if target.exists():
            raise StartError(f"{target}: exists already; give the path of a new folder")
        place.record("export", _told(asked))
        log = place.log()

        async def question(reader: Reader) -> int:
            count = await write_export(log, reader, await _selection(reader, asked), target)
            click.echo(f"{count} event(s) with their proofs in {target}")
            return 0

        return place.read(question)

    _run(path, start)


@audit.command("search")
@_selecting
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.option("--before", type=int, help="Only entries before this one: the next page.")
@click.option("--json", "raw", is_flag=True, help="One JSON object per line, with its index.")
@click.pass_obj
def search_events(path: Path, /, limit: int, before: int | None, raw: bool, **asked: Any) -> None:
    """Find events, newest first, by an index that is derived from the log (made or brought up to date first)."""

    def start(place: Place) -> int:
        place.record("search", _told(asked))

        async def question(reader: Reader) -> int:
            index = await _index(place, reader)
            found = await search(
                reader, await _selection(reader, asked), limit=limit, before=before, index=index
            )
            for at, event in found:
                _show(at, event, raw=raw)
            return 0 if found else FAILED

        return place.read(question)

    _run(path, start)


async def _index(place: Place, reader: Reader) -> Index:
    index = await trio.to_thread.run_sync(open_index, place.folder, place.zone)
    await index.follow(reader)
    return index


@audit.command()
@click.option("--from", "since", required=True, help="From this date or time (UTC) on.")
@click.pass_obj
def pages(path: Path, since: str) -> None:
    """Count the pages of data shared per customer and day, attended and unattended, and those beyond what is free."""

    def start(place: Place) -> int:
        place.record("pages", f"since={since}")
        return place.read(partial(tell_pages, _moment(since), 0, place.zone, click.echo))

    _run(path, start)


@audit.command()
@click.pass_obj
def reindex(path: Path) -> None:
    """Build the index anew from the log."""

    def start(place: Place) -> int:
        async def question(reader: Reader) -> int:
            index = await trio.to_thread.run_sync(open_index, place.folder, place.zone)
            await index.forget()
            began = monotonic()
            await index.follow(reader)
            click.echo(f"{index.size} events in {monotonic() - began:.1f} s")
            return 0

        return place.read(question)

    _run(path, start)


@audit.command()
@click.argument("interaction_id")
@click.pass_obj
def trace(path: Path, interaction_id: str) -> None:
    """Tell an interaction stage by stage, and explain a refusal in the words of the TPP's error page."""

    def start(place: Place) -> int:
        place.record("trace", interaction_id)

        async def question(reader: Reader) -> int:
            found = [(at, event_of(leaf)) for at, leaf in await reader.trace(interaction_id)]
            for line in told(found, explain):
                click.echo(line)
            return 0 if found else FAILED

        return place.read(question)

    _run(path, start)


@audit.command("tail")
@click.option("--json", "raw", is_flag=True, help="One JSON object per line, with its index.")
@click.option("--from-index", "first", type=int, help="From this entry on; default: from now.")
@click.pass_obj
def tail_events(path: Path, raw: bool, first: int | None) -> None:
    """Show events as they come, until Ctrl-C."""

    def start(place: Place) -> int:
        place.record("tail", "")

        async def question(reader: Reader) -> int:
            async for at, event in tail(reader, first):
                _show(at, event, raw=raw)
                sys.stdout.flush()
            return 0

        return place.read(question)

    _run(path, start)


def _show(at: int, event: Event, *, raw: bool) -> None:
    if raw:
        click.echo(json.dumps({"index": at, **msgspec.to_builtins(event)}))
        return
    moment = datetime.fromtimestamp(event.time_ms / 1000, UTC).isoformat(timespec="milliseconds")
    who = event.client_id or event.subject
    ended = f"{event.verdict}{f' {event.check}' if event.check else ''}"
    times = (
        f" hub {event.hub_us / 1000:.1f} ms, bank {event.bank_us / 1000:.1f} ms"
        if event.hub_us
        else ""
    )
    what = event.route or event.kind
    change = f" {event.change}" if event.change else ""
    click.echo(
        f"{at} {moment} {what}{change} {event.status or '-'} {ended}{times} {who} {event.interaction_id}"
    )


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
        if unknown := set(days) - set(Kind):
            raise StartError(
                f"log.retain: unknown kinds {sorted(unknown)}; known: {', '.join(Kind)}"
            )
        if not days:
            raise StartError("log.retain says of no kind of event how many days to keep it")
        if target.exists():
            raise StartError(f"{target}: exists already; give the path of a new folder")
        failed: list[BaseException] = []
        count = 0
        try:
            count = trio.run(prune_log, place.loaded.settings, WallClock(), target)
        except* (StoreError, LogError, OSError) as group:
            failed += group.exceptions
        if failed:
            raise StartError(str(failed[0])) from None
        click.echo(f"{count} event(s) forgotten" + (f"; they are in {target}" if count else ""))
        return 0

    _run(path, start)


_BY: Final = {
    "performance": ("day", "organisation", "route", "group"),
    "errors": ("route", "status"),
    "volumes": ("day", "route"),
    "tpps": ("organisation", "client"),
}


@audit.command()
@click.argument("name", type=click.Choice([*_BY, "availability", "outages"]))
@click.option(
    "--from", "first", required=True, help="First day, as in 2026-11-01 (tenant's time zone)."
)
@click.option("--to", "last", required=True, help="Last day.")
@click.option("--face", type=click.Choice(["tpp", "lfi", "any"]), default="tpp", show_default=True)
@click.option(
    "--format", "shape", type=click.Choice(["csv", "json"]), default="csv", show_default=True
)
@click.pass_obj
def report(path: Path, name: str, first: str, last: str, face: str, shape: str) -> None:
    """Report over days: calls with percentiles of Hub and bank time apart (ms), error rates, availability, outages."""

    def start(place: Place) -> int:
        try:
            period = Period(date.fromisoformat(first), date.fromisoformat(last), place.zone)
        except ValueError as error:
            raise StartError(f"--from and --to: {error}") from None
        place.record("report", f"{name},{first},{last}")

        async def question(reader: Reader) -> int:
            index = await _index(place, reader)
            sums = [one for one in await index.sums(first, last) if face in {"any", one.face}]
            seconds = period.seconds(WallClock().now())
            planned = await outages(cast("Keeper", reader))  # which only looks one record up
            if name == "outages":
                rows: list[dict[str, Any]] = [msgspec.to_builtins(one) for one in planned]
            elif name == "availability":
                times = [(one.begins, one.ends) for one in planned if not one.cancelled]
                routes = {one.route for one in sums}
                rows = availability_table(await index.spans(*seconds), times, routes, seconds)
            else:
                rows = table(sums, _BY[name])
            _print(rows, shape)
            return 0

        return place.read(question)

    _run(path, start)


def _print(rows: list[dict[str, Any]], shape: str) -> None:
    if shape == "json":
        click.echo(json.dumps(rows, indent=1))
        return
    sheet = csv.DictWriter(sys.stdout, list(rows[0]) if rows else [], lineterminator="\n")
    if rows:
        sheet.writeheader()
        sheet.writerows(rows)
