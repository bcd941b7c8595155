"""``hub audit``, the commands that read: search, trace, tail, page counts and reports."""

import csv
import json
import sys
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final, cast

import click
import msgspec
import trio

from hub.audit.index import Index, open_index
from hub.audit.pages import tell_pages
from hub.audit.reports import Period, availability_table, table
from hub.audit.search import event_of, search, tail
from hub.audit.trace import told
from hub.audit.turnover import all_of, consent_table, payment_table
from hub.authz.explanations import explain
from hub.cli_audit_asked import (
    index_of,
    moment_ms,
    selecting,
    selection_of,
    start_at,
    tell_if_more,
    told_of,
)
from hub.cli_run import FAILED
from hub.model.event import Event
from hub.node.reading import Place
from hub.node.wall import WallClock
from hub.state.keeper import Keeper
from hub.state.open import Reader
from hub.state.outages import outages

_INDEX: Final = click.IntRange(0, 2**63 - 1)
"""What a database can count to."""


@click.command("search")
@selecting
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.option("--before", type=_INDEX, help="Only entries before this one: the next page.")
@click.option("--json", "raw", is_flag=True, help="One JSON object per line, with its index.")
@click.pass_obj
def search_events(path: Path, /, limit: int, before: int | None, raw: bool, **asked: Any) -> None:
    """Find events, newest first, by an index that is derived from the log (made or brought up to date first)."""

    def start(place: Place) -> int:
        place.record("search", told_of(asked))

        async def question(reader: Reader) -> int:
            index = await index_of(place, reader)
            found = await search(
                reader, await selection_of(reader, asked), limit=limit, before=before, index=index
            )
            for at, event in found:
                _show(at, event, raw=raw)
            return 0 if found else _none("no event is as asked for")

        return place.read(question)

    start_at(path, start)


@click.command()
@click.option("--from", "since", required=True, help="From this date or time (UTC) on.")
@click.pass_obj
def pages(path: Path, since: str) -> None:
    """Count the pages of data shared per customer and day, attended and unattended, and those beyond what is free."""

    def start(place: Place) -> int:
        place.record("pages", f"since={since}")
        return place.read(partial(tell_pages, moment_ms(since), 0, place.zone, click.echo))

    start_at(path, start)


@click.command()
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

    start_at(path, start)


@click.command()
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
            tell_if_more(len(found))
            return 0 if found else _none(f"{interaction_id}: no event of this interaction")

        return place.read(question)

    start_at(path, start)


@click.command("tail")
@click.option("--json", "raw", is_flag=True, help="One JSON object per line, with its index.")
@click.option("--from-index", "first", type=_INDEX, help="From this entry on; default: from now.")
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

    start_at(path, start)


def _none(why: str) -> int:
    """Say that nothing was found, where it does not mix with what was asked for; return the exit status."""
    click.echo(f"hub: {why}", err=True)
    return FAILED


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


_BY: Final = {
    "performance": ("day", "organisation", "route", "group"),
    "errors": ("route", "status"),
    "volumes": ("day", "route"),
    "tpps": ("organisation", "client"),
}


@click.command()
@click.argument(
    "name", type=click.Choice([*_BY, "availability", "outages", "payments", "consents"])
)
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
    """Report over days: calls with percentiles of Hub and bank time apart (ms), error rates, availability, outages.

    Also what payments were worth, and what became of the consents of these days.
    """

    def start(place: Place) -> int:
        period = _period(first, last, place.zone)
        place.record("report", f"{name},{first},{last}")

        async def question(reader: Reader) -> int:
            if name in {"payments", "consents"}:
                rows = await _held(reader, name, period)
            else:
                index = await index_of(place, reader)
                rows = await _of_calls(index, reader, name, period, face)
            _print(rows, shape)
            return 0

        return place.read(question)

    start_at(path, start)


def _period(first: str, last: str, zone: str) -> Period:
    try:
        period = Period(date.fromisoformat(first), date.fromisoformat(last), zone)
        period.seconds(0)
    except (ValueError, OverflowError):
        period = None
    if period is None or period.last < period.first:
        raise click.BadParameter(
            f"{first!r}, {last!r}: expected two days like 2026-11-01, the first no later than the last",
            param_hint="--from, --to",
        )
    return period


async def _of_calls(
    index: Index, reader: Reader, name: str, period: Period, face: str
) -> list[dict[str, Any]]:
    days = period.first.isoformat(), period.last.isoformat()
    sums = [one for one in await index.sums(*days) if face in {"any", one.face}]
    planned = await outages(cast("Keeper", reader))  # which only looks one record up
    if name == "outages":
        return [msgspec.to_builtins(one) for one in planned]
    if name != "availability":
        return table(sums, _BY[name])
    seconds = period.seconds(WallClock().now())
    times = [(one.begins, one.ends) for one in planned if not one.cancelled]
    routes = {one.route for one in sums}
    return availability_table(await index.spans(*seconds), times, routes, seconds)


async def _held(reader: Reader, name: str, period: Period) -> list[dict[str, Any]]:
    days = period.first.isoformat(), period.last.isoformat()
    if name == "payments":
        return payment_table([one async for one in all_of(reader, "payment")], *days)
    consents = [one async for one in all_of(reader, "consent")]
    return consent_table(consents, *days, period.zone, WallClock().now())


def _print(rows: list[dict[str, Any]], shape: str) -> None:
    if shape == "json":
        click.echo(json.dumps(rows, indent=1))
        return
    if not rows:
        click.echo("hub: nothing to report of these days", err=True)
        return
    sheet = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
    sheet.writeheader()
    sheet.writerows(rows)


COMMANDS: Final = (search_events, pages, reindex, trace, tail_events, report)
