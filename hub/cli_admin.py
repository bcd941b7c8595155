"""``hub admin``: what an operator tells a running Hub, over the Unix socket in its state folder."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
import orjson

from hub.cli_run import FAILED, run
from hub.node.ask import ask

_LEVELS: Final = ("tpp", "statement", "client")
"""Of activation, highest first."""


@click.group()
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=Path(".sandbox/hub.toml"),
    show_default=True,
    metavar="FILE",
    help="The configuration of the running Hub.",
)
@click.option("--json", "raw", is_flag=True, help="Print the answer as JSON.")
@click.pass_context
def admin(context: click.Context, path: Path, raw: bool) -> None:
    """Operate a running Hub: TPPs, consents, outages, deliveries. Each command is an event in the audit log.

    Speaks to the Unix socket admin.sock in the Hub's state folder, which only the Hub's own user can open.
    """
    context.obj = _Line(path, raw)


class _Line:
    """One configuration, one way to print."""

    def __init__(self, path: Path, raw: bool) -> None:
        self._path = path
        self._raw = raw

    def tell(self, show: Callable[[dict[str, Any]], list[str]], **request: Any) -> None:
        """Send one command, print its answer; exit status 1 when it was refused, 4 when nobody listens."""

        def start() -> int:
            answer = ask(self._path, request)
            if self._raw:
                click.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
            elif answer["ok"]:
                for line in show(answer):
                    click.echo(line)
            if not answer["ok"] and not self._raw:
                click.echo(f"hub: {answer.get('error')} ({answer.get('check')})", err=True)
            return 0 if answer["ok"] else FAILED

        run(start)


def _ok(what: str) -> Callable[[dict[str, Any]], list[str]]:
    return lambda _answer: [what]


def _registration(row: dict[str, Any]) -> str:
    name = row.get("framework", {}).get("name", "")
    states = "  ".join(f"{level} {row[f'{level}_state']}" for level in _LEVELS)
    kept_out = f"  refused: {row['check']}" if row.get("check") else ""
    return f"{row['client_id']}  {states}{kept_out}  {name}"


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_LEVEL = click.option(
    "--level",
    type=click.Choice(_LEVELS),
    default="client",
    show_default=True,
    help="TPP (the whole organisation), software statement, or client.",
)


@admin.command("registrations")
@click.pass_obj
def _registrations(line: _Line) -> None:
    """List the registered TPP clients, their levels, and the check that keeps each one out."""
    line.tell(
        lambda a: (
            [_registration(r) for r in a["registrations"]]
            + ([f"{a['total']} in all"] if a["total"] > len(a["registrations"]) else [])
            or ["nobody is registered"]
        ),
        do="registrations",
    )


@admin.command("activate")
@click.argument("client")
@click.option(
    "--level",
    type=click.Choice(("all", *_LEVELS)),
    default="all",
    show_default=True,
    help="One level, in the order tpp, statement, client; or all three as one act.",
)
@click.pass_obj
def _activate(line: _Line, client: str, level: str) -> None:
    """Activate CLIENT (its id): TPP, software statement and client."""
    line.tell(
        lambda a: [_registration(a["registration"])], do="activate", client=client, level=level
    )


@admin.command("block")
@click.argument("client")
@_LEVEL
@click.pass_obj
def _block(line: _Line, client: str, level: str) -> None:
    """Block CLIENT at one level; it holds from the moment this command returns."""
    line.tell(lambda a: [_registration(a["registration"])], do="block", client=client, level=level)


@admin.command("unblock")
@click.argument("client")
@_LEVEL
@click.pass_obj
def _unblock(line: _Line, client: str, level: str) -> None:
    """Take a block back: the level is again what it was before."""
    line.tell(
        lambda a: [_registration(a["registration"])], do="unblock", client=client, level=level
    )


@admin.command("revoke")
@click.argument("consent")
@click.pass_obj
def _revoke(line: _Line, consent: str) -> None:
    """Revoke CONSENT (its id) in the bank's name; its tokens die with it."""
    line.tell(lambda a: [f"{a['consent']}  {a['status']}"], do="revoke", consent=consent)


@admin.command("resync")
@click.pass_obj
def _resync(line: _Line) -> None:
    """Look at the Trust Framework now, all of it."""
    line.tell(_ok("the Trust Framework was read anew"), do="resync")


@admin.command("reload")
@click.pass_obj
def _reload(line: _Line) -> None:
    """Read certificates and CA bundles again, in every process."""
    line.tell(_ok("certificates are read again"), do="reload")


@admin.command("trust")
@click.pass_obj
def _trust(line: _Line) -> None:
    """Show the state of the Trust Framework's snapshot."""
    line.tell(lambda a: [f"{name}: {value}" for name, value in a["trust"].items()], do="trust")


@admin.command("expiries")
@click.pass_obj
def _expiries(line: _Line) -> None:
    """List certificates and keys that end within sixty days, the nearest first."""
    line.tell(
        lambda a: (
            [
                f"{_moment(b['ends'])}  {b['mark']:>7}  {b['owner']}  {b['what']}  {b['id']}"
                for b in a["expiries"]
            ]
            or ["nothing ends within sixty days"]
        ),
        do="expiries",
    )


@admin.group("outage")
def _outage() -> None:
    """Announce planned outages; they are shown to bank staff and in the metric hub_planned_outage."""


def _outage_line(row: dict[str, Any]) -> str:
    called_off = "  cancelled" if row.get("cancelled") else ""
    return f"{row['id']}  {_moment(row['begins'])} to {_moment(row['ends'])}{called_off}  {row.get('reason', '')}"


_WHEN = click.DateTime(["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M"])


@_outage.command("plan")
@click.option("--from", "begins", type=_WHEN, required=True, help="UTC.")
@click.option("--until", "ends", type=_WHEN, required=True, help="UTC.")
@click.option("--reason", default="", help="Shown to bank staff.")
@click.pass_obj
def _outage_plan(line: _Line, begins: datetime, ends: datetime, reason: str) -> None:
    """Announce an outage."""
    line.tell(
        lambda a: [_outage_line(a["outage"])],
        do="outage",
        begins=int(begins.replace(tzinfo=UTC).timestamp()),
        ends=int(ends.replace(tzinfo=UTC).timestamp()),
        reason=reason,
    )


@_outage.command("cancel")
@click.argument("outage")
@click.pass_obj
def _outage_cancel(line: _Line, outage: str) -> None:
    """Call OUTAGE (its id) off."""
    line.tell(lambda a: [_outage_line(a["outage"])], do="outage-cancel", outage=outage)


@_outage.command("list")
@click.pass_obj
def _outage_list(line: _Line) -> None:
    """List planned outages, past ones too."""
    line.tell(
        lambda a: [_outage_line(row) for row in a["outages"]] or ["no outage is planned"],
        do="outages",
    )


@admin.command("dead-letters")
@click.pass_obj
def _dead_letters(line: _Line) -> None:
    """List what could not be told to the bank or to a TPP."""
    line.tell(
        lambda a: (
            [
                f"event {d['index']}  {d['target']}  consent {d['consent_id']}  "
                f"{d['attempts']} attempts, last status {d['status']}"
                for d in a["dead"]
            ]
            + [f"{a['total']} in all"]
        ),
        do="dead-letters",
    )


@admin.command("replay")
@click.option("--from", "first", type=click.IntRange(0), default=0, help="Index of an event.")
@click.option(
    "--told", is_flag=True, help="What was told already is told again, instead of dead letters."
)
@click.pass_obj
def _replay(line: _Line, first: int, told: bool) -> None:
    """Let dead letters from an event on be delivered again."""
    line.tell(
        lambda a: [f"{a['replayed']} deliveries are made again"],
        do="replay",
        first=first,
        state="told" if told else "dead",
    )


@admin.group("payments")
def _payments() -> None:
    """Settle payments whose outcome nobody knows; see what a payment consent has left."""


def _payment_line(row: dict[str, Any]) -> str:
    return (
        f"{row['payment']}  since {row['since']}  {row.get('amount', '?')} {row.get('currency', '')}  "
        f"consent {row['consent']}  key {row.get('idempotency_key', '?')}  sent again {row['sent_again']} times"
    )


@_payments.command("unknown")
@click.pass_obj
def _payments_unknown(line: _Line) -> None:
    """List payments that were sent to the bank and of which nobody knows what became; their shares stay taken."""
    line.tell(
        lambda a: [*(_payment_line(row) for row in a["payments"]), f"{a['total']} in all"],
        do="payments-unknown",
    )


@_payments.command("settle")
@click.argument("payment")
@click.option("--made", "payment_id", default="", metavar="ID", help="The bank made it, as ID.")
@click.option("--status", default="", help="What the bank says of it; Pending by default.")
@click.option("--never", is_flag=True, help="The bank never executed it; its share becomes free.")
@click.option("--by", required=True, metavar="NAME", help="Who says so.")
@click.pass_obj
def _payments_settle(
    line: _Line, payment: str, payment_id: str, status: str, never: bool, by: str
) -> None:
    """Say what the bank told you of PAYMENT (its name in the list). It is settled when a second operator says the same."""
    if never == bool(payment_id):
        raise click.UsageError("expected either --made ID or --never")
    line.tell(
        lambda a: ["settled" if a["settled"] else f"noted; {a['next']}"],
        do="payment-settle",
        payment=payment,
        outcome="never" if never else "made",
        id=payment_id,
        status=status,
        by=by,
    )


@_payments.command("left")
@click.argument("consent")
@click.pass_obj
def _payments_left(line: _Line, consent: str) -> None:
    """Show what the payment CONSENT (its id) has taken, and what is left of each limit today."""
    line.tell(
        lambda a: [
            f"{a['consent']}  {a['status']}  taken {a['taken']['number']} payments, "
            f"{a['taken']['value']} AED; {a['open']} not final",
            *(f"left of {name}: {'no limit' if v is None else v}" for name, v in a["left"].items()),
        ],
        do="allowance",
        consent=consent,
    )
