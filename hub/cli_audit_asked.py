"""What the commands of ``hub audit`` have in common: where the log is, which events are asked for, the index."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
import trio

from hub.audit.index import Index, open_index
from hub.audit.search import Selection
from hub.cli_run import run
from hub.model.event import Verdict
from hub.node.reading import Place
from hub.state.entry import MOST
from hub.state.keeper import Query
from hub.state.open import Reader

_ONE_PAGE: Final = 1000


def start_at(path: Path, start: Callable[[Place], int]) -> None:
    """Run a command at the place that a configuration names; end with its exit status."""
    run(lambda: start(Place(path)))


def moment_ms(text: str) -> int:
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


def selecting(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that select events."""
    for name, help_text in (
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
    verdict = click.option(
        "--verdict", type=click.Choice([one.value for one in Verdict]), help="How it ended."
    )
    status = click.option(
        "--status", type=click.IntRange(0, 599), default=0, help="Answered with this status."
    )
    return status(verdict(command))


async def _consents_of(reader: Reader, customer: str) -> frozenset[str]:
    """Return the ids of all consents of a customer, page by page."""
    found: set[str] = set()
    for offset in itertools.count(0, _ONE_PAGE):
        query = Query(kind="consent", where=(("psu", customer),), offset=offset, limit=_ONE_PAGE)
        items = (await reader.search(query)).items
        found.update(item.record.key for item in items)
        if len(items) < _ONE_PAGE:
            break
    return frozenset(found)


async def selection_of(reader: Reader, asked: dict[str, Any]) -> Selection:
    """Turn options into a selection; a customer into the consents that the bank says are the customer's."""
    consents: frozenset[str] = frozenset()
    if asked["customer"]:
        consents = await _consents_of(reader, asked["customer"]) or frozenset({"-"})
    return Selection(
        start_ms=moment_ms(asked["since"]),
        end_ms=moment_ms(asked["until"]),
        consent_id=asked["consent"],
        consent_ids=consents,
        tpp=asked["tpp"],
        interaction_id=asked["interaction"],
        route=asked["route"],
        verdict=asked["verdict"] or "",
        status=asked["status"],
    )


def told_of(asked: dict[str, Any]) -> str:
    """Return what an event says of a selection: names of what was asked for; a customer only as asked for."""
    shown = {name: value for name, value in asked.items() if value and name != "customer"}
    return ",".join(
        [*(f"{n}={v}" for n, v in shown.items()), *(["customer"] * bool(asked["customer"]))]
    )


def tell_if_more(shown: int) -> None:
    """Say that an interaction may have more events than are given of it: its name is its caller's choice."""
    if shown >= MOST:
        click.echo(
            f"hub: these are the oldest {shown}; hub audit export --interaction gives every one",
            err=True,
        )


async def index_of(place: Place, reader: Reader) -> Index:
    """Return the index of the log, brought up to date. Cancellation: harmless."""
    index = await trio.to_thread.run_sync(open_index, place.folder, place.zone)
    await index.follow(reader)
    return index
