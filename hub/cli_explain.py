"""``hub explain CODE``: what a refusal means, from the same table as the page behind ``error_uri``."""

import difflib

import click

from hub.authz.explanations import explain as meaning_of
from hub.authz.explanations import names

UNKNOWN = 2


@click.command()
@click.argument("code", required=False)
def explain(code: str | None) -> None:
    """Say what a refusal means.

    CODE is the last part of an error_uri (client_assertion.audience), the whole error_uri, or an error (invalid_client);
    without it every code is listed.
    """
    if code is None:
        for name in names():
            click.echo(name)
        return
    name = code.rstrip("/").rpartition("/")[2]
    text = meaning_of(name)
    if text is None:
        near = difflib.get_close_matches(name, names(), n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else "; `hub explain` lists all codes"
        click.echo(f"hub: {name}: no such code{hint}", err=True)
        raise SystemExit(UNKNOWN)
    click.echo(text, nl=False)
