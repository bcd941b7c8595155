"""``hub directory``: the tenant's own record, and any participants document checked; ``hub sandbox directory``: a framework to try."""

import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import httpx
import orjson
import trio

from hub.cli_run import BAD_CONFIGURATION, FAILED, run
from hub.config import config_folder, load
from hub.contract import load_contract
from hub.model.route import Route
from hub.node.errors import StartError
from hub.trust.record import SEGMENTS, lint, make_record

_OCTETS: Final = 67_108_864
_PATIENCE_S: Final = 30.0
_KINDS: Final = (
    "SingleInstantPayment",
    "FixedDefinedSchedule",
    "VariableDefinedSchedule",
    "FixedPeriodicSchedule",
    "VariablePeriodicSchedule",
    "FixedOnDemand",
)
_BENEFICIARIES: Final = ("Single", "Multiple", "Open")
_OF: Final = {
    kind: {
        f"{which}Benefic{'iaries' if which != 'Single' else 'iary'}Supported": True
        for which in _BENEFICIARIES
    }
    for kind in ("VariableOnDemand", "DelegatedAuthentication")
}
DEFAULT_METADATA: Final[Mapping[str, Mapping[str, Any]]] = {
    "account-information": {"AccountSubType": ["CurrentAccount", "Savings", "CreditCard"]},
    "payment": {kind: {"Supported": True} for kind in _KINDS} | _OF,
}
"""What the framework demands of each family (trust-framework.md 3.3); a tenant's own is given with --metadata."""
_FAMILIES: Final = {segment: family for family, segment in SEGMENTS.items()}


@click.group()
def directory() -> None:
    """Make the tenant's own entry for the Trust Framework, and check anybody's."""


@directory.command("record")
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="The tenant's configuration.",
)
@click.option("--name", default="", help="What customers are shown; the legal name by default.")
@click.option("--server-id", default="", help="The id that the framework gave the server, if any.")
@click.option(
    "--metadata",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="JSON: ApiMetadata by family, in the place of what this Hub can do.",
)
def _record(path: Path, name: str, server_id: str, metadata: Path | None) -> None:
    """Print the tenant's authorisation server with its API resources, made from its configuration, as JSON.

    Checked as `hub directory lint` would; exit status 1 where that finds anything.
    """

    def start() -> int:
        settings = load(path).settings
        tenant = settings.tenant
        routes = load_contract(config_folder() / "contract", None).routes
        made = make_record(
            tenant,
            server_id=server_id,
            name=name or tenant.organisation_name,
            endpoints=endpoints_of(routes),
            metadata={**DEFAULT_METADATA, **(_read_metadata(metadata) if metadata else {})},
            notifications=settings.trust.push_key is not None,
        )
        document = orjson.dumps(made, option=orjson.OPT_INDENT_2)
        click.echo(document.decode())
        return _report(document, quiet=True)

    run(start)


def endpoints_of(routes: Sequence[Route]) -> dict[tuple[str, str], list[str]]:
    """Return the path templates of what is served, by the framework's family name and version."""
    found: dict[tuple[str, str], list[str]] = {}
    for route in routes:
        family = _FAMILIES.get(route.path.split("/")[2], route.family)
        held = found.setdefault((family, route.version.removeprefix("v")), [])
        if route.path not in held:
            held.append(route.path)
    return found


def _read_metadata(path: Path) -> dict[str, Any]:
    try:
        read = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise click.BadParameter(f"{path}: {error}", param_hint="--metadata") from None
    if not isinstance(read, dict) or not all(isinstance(v, dict) for v in read.values()):
        raise click.BadParameter(f"{path}: expected families with objects", param_hint="--metadata")
    return read


@directory.command("lint")
@click.argument("source", metavar="URL|FILE")
@click.option(
    "--ca",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="CA bundle of the URL's certificate; the system's by default.",
)
def _lint(source: str, ca: Path | None) -> None:
    """Check a participants document: an array of organisations, one of them, or one server.

    Prints one line per oddity: where it stands (a JSON pointer), which rule, and what was found. Exit status 1 where there is any.
    """

    def start() -> int:
        return _report(fetched(source, ca) if "://" in source else _read(Path(source)))

    run(start)


def _report(document: bytes, *, quiet: bool = False) -> int:
    found = lint(document)
    for finding in found:
        click.echo(f"{finding.pointer or '/'}: {finding.rule}: {finding.what}", err=quiet)
    if not quiet:
        click.echo(f"{len(found)} findings")
    return FAILED if found else 0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartError(f"{path}: cannot be read ({error.strerror})") from None


def fetched(url: str, ca: Path | None) -> bytes:
    """Fetch a document over https, without redirects, at most 64 MiB.

    Raises:
        StartError: It cannot be had; one line says why.
    """
    if not url.startswith("https://"):
        raise StartError(f"{url}: expected https")
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    except OSError as error:  # ssl.SSLError is one too
        raise StartError(f"--ca {ca}: expected PEM certificates: {error}") from None
    held = bytearray()
    try:
        with (
            httpx.Client(verify=context, timeout=_PATIENCE_S, trust_env=False) as client,
            client.stream("GET", url) as answer,
        ):
            for piece in answer.iter_bytes():
                held += piece
                if len(held) > _OCTETS:
                    raise StartError(f"{url}: is larger than {_OCTETS} octets")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise StartError(f"{url}: {type(error).__name__}: {error}") from None
    if answer.status_code != 200:
        raise StartError(f"{url}: answered {answer.status_code}")
    return bytes(held)


@click.group("directory")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path(".sandbox"),
    show_default=True,
    help="The folder of the running sandbox.",
)
@click.pass_context
def sandbox_directory(context: click.Context, folder: Path) -> None:
    """Change the Trust Framework of a running sandbox; the Hub finds out as it would in production.

    The same can be seen and done on the directory's page, whose address stands in sandbox.json.
    """
    context.obj = folder


def _do(folder: Path, act: str, **members: str) -> None:
    """Carry one act out and print what came of it."""

    def start() -> int:
        from hub.sandbox.control import ask  # noqa: PLC0415 - keeps `hub --help` quick

        given = {name: value for name, value in members.items() if value}
        answer = trio.run(ask, folder, {"do": "directory", "act": act, **given})
        if not answer.pop("ok"):
            click.echo(f"hub: {answer['error']}", err=True)
            return BAD_CONFIGURATION if "expected" in answer["error"] else FAILED
        if act == "list":
            _show(answer["organisations"])
        for name, value in answer.items() if act != "list" else ():
            click.echo(f"{name}: {value}")
        return 0

    run(start)


def _show(organisations: Sequence[Mapping[str, Any]]) -> None:
    for o in organisations:
        click.echo(
            f"{o['organisation_id']}  {o['size']}  {o['status']}  {','.join(o['roles']) or '-'}  {o['name']}"
        )
        for key in o["keys"]:
            click.echo(f"    key {key['kid']}  {key['status']}  {key['type']}  {key['ends']}")
        for a in o["applications"]:
            click.echo(
                f"  {a['client_id']}  {a['status']}  {','.join(a['roles']) or '-'}  {a['name']}"
            )
            for key in a["keys"]:
                click.echo(f"    key {key['kid']}  {key['status']}  {key['type']}  {key['ends']}")


def _simple(name: str, act: str, text: str, *members: str) -> None:
    """Add a command whose arguments are an act's members."""

    def command(folder: Path, **given: str) -> None:
        _do(folder, act, **given)

    command.__doc__ = text
    for member in reversed(members):
        command = click.argument(member)(command)
    sandbox_directory.command(name)(click.pass_obj(command))


_simple("list", "list", "List organisations, applications and keys.")
_simple("revoke", "revoke", "Revoke the key KID: key store, CRL and OCSP say so.", "kid")
_simple("restore", "restore", "Take the revocation of KID back: it was an error.", "kid")
_simple("suspend", "suspend", "Suspend the application CLIENT_ID.", "client_id")
_simple("resume", "resume", "Make a suspended application active again.", "client_id")
_simple("withdraw", "withdraw", "Withdraw the organisation ORGANISATION_ID.", "organisation_id")
_simple("reinstate", "reinstate", "Make a withdrawn organisation active again.", "organisation_id")
_simple("drop-role", "drop_role", "Take ROLE (BDSP, BSIP, ISP) away.", "organisation_id", "role")
_simple("give-role", "give_role", "Give ROLE.", "organisation_id", "role")
_simple(
    "expire",
    "expire",
    "Put a certificate of the same key that ends in SECONDS in the place of KID's.",
    "kid",
    "seconds",
)


@sandbox_directory.command("new-organisation")
@click.argument("name")
@click.option("--roles", default="", help="Like BDSP,BSIP; both by default for a TPP.")
@click.option("--size", type=click.Choice(("TPP", "LFI", "TSP")), default="TPP", show_default=True)
@click.pass_obj
def _new_organisation(folder: Path, name: str, roles: str, size: str) -> None:
    """Add an organisation with the legal name NAME."""
    _do(folder, "new_organisation", name=name, roles=roles, size=size)


@sandbox_directory.command("new-application")
@click.argument("organisation_id")
@click.argument("name")
@click.option("--redirect-uri", multiple=True, help="https; may be repeated.")
@click.option("--webhook-uri", multiple=True, help="https; may be repeated.")
@click.option("--roles", default="", help="A subset of the organisation's; all by default.")
@click.pass_obj
def _new_application(
    folder: Path,
    organisation_id: str,
    name: str,
    redirect_uri: Sequence[str],
    webhook_uri: Sequence[str],
    roles: str,
) -> None:
    """Add an application (client and software statement) to an organisation."""
    _do(
        folder,
        "new_application",
        organisation_id=organisation_id,
        name=name,
        redirect_uri=" ".join(redirect_uri),
        webhook_uri=" ".join(webhook_uri),
        roles=roles,
    )


@sandbox_directory.command("new-key")
@click.argument("client_id")
@click.argument("kind", type=click.Choice(("transport", "signing", "encryption")))
@click.option(
    "--expire-in", "seconds", default="", metavar="SECONDS", help="Its certificate ends then."
)
@click.pass_obj
def _new_key(folder: Path, client_id: str, kind: str, seconds: str) -> None:
    """Make a key with its certificate for an application, publish it, and say where both files are."""
    _do(folder, "new_key", client_id=client_id, kind=kind, seconds=seconds)


def _site(name: str, text: str) -> None:
    @click.option(
        "--site",
        type=click.Choice(("directory", "directory-api", "pki")),
        help="One of its three sites; all by default.",
    )
    def command(folder: Path, site: str | None) -> None:
        _do(folder, name, site=site or "")

    command.__doc__ = text
    sandbox_directory.command(name)(click.pass_obj(command))


_site("down", "Close every connection without an answer, until told `up`.")
_site("slow", "Answer after five seconds, until told `up`.")
_site("wrong", "Answer JSON of another shape, until told `up`.")
_site("up", "Answer as it should again.")
