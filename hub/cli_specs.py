"""``hub specs``: the official documents beside our contract: list, check, use, diff."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
import orjson

from hub import __version__
from hub.cli_run import FAILED, run
from hub.config import config_folder, load
from hub.contract.bank_side import describe_bank_side
from hub.contract.contract import load_contract, used_specs
from hub.contract.description import describe
from hub.contract.specs import Difference, check_specs, diff_specs, lay_down, list_specs

BAD_INPUT: Final = 2
_DIR: Final = click.Path(path_type=Path, exists=True, file_okay=False)


def _run(start: Callable[[], int]) -> None:
    """Run a command; documents that cannot be read become one line, too."""

    def told() -> int:
        try:
            return start()
        except (OSError, ValueError) as error:
            click.echo(f"hub: {error}", err=True)
            return BAD_INPUT

    run(told)


def _config_option(*, required: bool) -> Callable[[Any], Any]:
    return click.option(
        "--config",
        "path",
        type=click.Path(path_type=Path),
        required=required,
        metavar="FILE",
        help="The tenant's configuration.",
    )


def _ours() -> Path:
    return config_folder() / "contract"


def _in_force(path: Path | None) -> Path:
    """Return the contract folder in force at a tenant; ours without one."""
    laid = used_specs(load(path).settings.state.folder) if path is not None else None
    return laid or _ours()


@click.group()
def specs() -> None:
    """Compare the contract that the Hub enforces with official OpenAPI documents, or enforce these."""


@specs.command("list")
@_config_option(required=False)
def specs_list(path: Path | None) -> None:
    """List the documents that are enforced: ours, or those that were laid over them for a tenant."""

    def start() -> int:
        for spec in list_specs(_in_force(path)):
            click.echo(
                f"{spec.name:24} {spec.version:14} {spec.sites:3} sites  {spec.base or '-'}  ({spec.document})"
            )
        return 0

    _run(start)


def _tell(differences: tuple[Difference, ...], *, every: bool) -> int:
    unlisted = [d for d in differences if not d.listed]
    for difference in differences if every else unlisted:
        click.echo(f"{difference.text}{'  (listed)' if difference.listed else ''}")
    return len(unlisted)


@specs.command("check")
@click.argument("folder", metavar="DIR", type=_DIR)
@click.option("--all", "every", is_flag=True, help="Print the listed differences too.")
@_config_option(required=False)
def specs_check(folder: Path, every: bool, path: Path | None) -> None:
    """Compare the contract with the official documents below DIR; exit 1 where an unlisted difference is found."""

    def start() -> int:
        found = check_specs(_in_force(path), folder)
        unlisted = _tell(found, every=every)
        click.echo(f"{len(found)} differences, {unlisted} of them not listed with a reason")
        return FAILED if unlisted else 0

    _run(start)


@specs.command("diff")
@click.argument("old", type=_DIR)
@click.argument("new", type=_DIR)
def specs_diff(old: Path, new: Path) -> None:
    """Say what the documents below NEW change against those below OLD, operation by operation."""

    def start() -> int:
        found = diff_specs(old, new)
        _tell(found, every=True)
        click.echo(f"{len(found)} differences")
        return 0

    _run(start)


@specs.command("describe")
@_config_option(required=False)
@click.option("--server", default="https://hub.example", help="Base URL, without --config.")
@click.option("--bank", is_flag=True, help="What the bank calls here, instead of what TPPs do.")
def specs_describe(path: Path | None, server: str, *, bank: bool) -> None:
    """Print the OpenAPI description of what the gateway serves.

    The ops listener answers it as /openapi.json, that of the bank's side as /openapi-bank.json.
    """

    def start() -> int:
        if bank:
            base = server if path is None else load(path).settings.lfi.base
            folder = config_folder() / "contract"
            document = describe_bank_side(folder, server=base, version=__version__)
            click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
            return 0
        base, beside = server, frozenset[str]()
        if path is not None:
            tenant = load(path).settings.tenant
            base, beside = tenant.resource_base, frozenset(tenant.beside)
        document = describe(_in_force(path), server=base, version=__version__, beside=beside)
        click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        return 0

    _run(start)


@specs.command("use")
@click.argument("folder", metavar="[DIR]", type=_DIR, required=False)
@_config_option(required=True)
@click.option("--ours", is_flag=True, help="Go back to the shipped contract.")
def specs_use(folder: Path | None, path: Path, ours: bool) -> None:
    """Lay the official documents below DIR over ours for one tenant; the node enforces them from its next start on.

    What is below DIR may be a base release with errata: the newest of each document counts. Schemas that nothing could
    satisfy are repaired, and each repair is printed. Documents of another version than ours are laid beside ours and
    served where [tenant] beside names that version.
    """

    def start() -> int:
        if (folder is None) is not ours:
            raise click.UsageError("give either DIR or --ours")
        state = load(path).settings.state.folder
        if folder is None:
            lay_down(None, _ours(), state)
            click.echo("The shipped contract is used from the next start on.")
            return 0
        used = lay_down(folder, _ours(), state, prove=lambda made: load_contract(made, None))
        for document in used.documents:
            click.echo(f"used      {document}")
        for repair in used.repairs:
            click.echo(f"repaired  {repair}")
        click.echo(
            f"{len(used.documents)} documents, {len(used.repairs)} repairs; enforced from the next start on"
        )
        return 0

    _run(start)
