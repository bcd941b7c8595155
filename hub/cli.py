"""The command line: serve, sandbox, tpp, config. Every command is a thin call; its help text is its documentation."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click
import trio
from typing_extensions import override

from hub import __version__
from hub.cli_run import FAILED, run
from hub.config import Loaded, load


class ImportedWhenAsked(click.Group):
    """A group some of whose commands live in modules that ``hub serve`` need not import: they are a third of its start."""

    def __init__(self, *, elsewhere: Mapping[str, str], **attributes: Any) -> None:
        """Remember where commands are: ``elsewhere`` is name -> ``module:attribute``."""
        super().__init__(**attributes)
        self._elsewhere = elsewhere

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in order."""
        return sorted({*super().list_commands(ctx), *self._elsewhere})

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; import it first if it is elsewhere."""
        if cmd_name not in self._elsewhere:
            return super().get_command(ctx, cmd_name)
        module, _, name = self._elsewhere[cmd_name].partition(":")
        found = getattr(import_module(module), name)
        return found if isinstance(found, click.Command) else None


class UpByDefault(ImportedWhenAsked):
    """A group whose ``up`` command may be left out."""

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``up`` in front of bare options."""
        if "--help" not in args[:1] and (not args or args[0].startswith("-")):
            args = ["up", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=ImportedWhenAsked,
    elsewhere={
        "specs": "hub.cli_specs:specs",
        "explain": "hub.cli_explain:explain",
        "keys": "hub.cli_keys:keys",
        "admin": "hub.cli_admin:admin",
        "audit": "hub.cli_audit:audit",
        "db": "hub.cli_db:db",
        "directory": "hub.cli_directory:directory",
    },
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="hub")
def main() -> None:
    """An API Hub for open finance: gateway, FAPI 2.0 authorization server, consent store and audit log.

    Start with `hub sandbox`: it runs a Trust Framework, a Hub, a bank and two TPPs on this machine, and takes one
    customer's consent all the way to account data. Shell completion: eval "$(_HUB_COMPLETE=bash_source hub)".
    """


@main.command()
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="The tenant's configuration (TOML); start from config/hub.production.toml.",
)
@click.option(
    "--worker", type=int, hidden=True, help="Run one worker; the supervisor asks for that."
)
def serve(path: Path, worker: int | None) -> None:
    """Serve one tenant in the foreground until SIGTERM or SIGINT.

    SIGTERM stops accepting, finishes what was started and exits 0; SIGHUP reads the configuration and certificates again. Each setting may be
    overridden from the environment as HUB__SECTION__KEY. The ops listener answers /livez, /readyz and /metrics.
    """

    def start() -> int:
        from hub.node.watch import hold_reloads  # noqa: PLC0415 - keeps `hub --help` quick

        hold_reloads()  # the next line takes most of a second
        from hub.node.run import serve as serve_node  # noqa: PLC0415 - as above

        return serve_node(path, worker)

    run(start)


@main.group()
def config() -> None:
    """Look at a configuration without starting anything."""


def _config_argument(command: Callable[..., None]) -> Callable[..., None]:
    return click.argument("path", metavar="FILE", type=click.Path(path_type=Path))(command)


@config.command("check")
@_config_argument
def config_check(path: Path) -> None:
    """Validate FILE; print one line that says it is good, or what is wrong with it (exit status 3)."""

    def start() -> int:
        from hub.node.check import check_files  # noqa: PLC0415

        loaded = load(path)
        check_files(loaded.settings)
        tenant = loaded.settings.tenant
        click.echo(
            f"{path}: good ({tenant.environment} Hub of {tenant.provider_id} at {tenant.issuer})"
        )
        return 0

    run(start)


@config.command("show")
@_config_argument
def config_show(path: Path) -> None:
    """Print every setting of FILE with the place it came from."""

    def start() -> int:
        for line in describe(load(path)):
            click.echo(line)
        return 0

    run(start)


def describe(loaded: Loaded) -> list[str]:
    """Return one line per setting: its value and its origin."""
    lines = []
    for section in loaded.settings.__struct_fields__:
        table = getattr(loaded.settings, section)
        fields = getattr(table, "__struct_fields__", None)
        if fields is None:
            lines.append(f"{section} = {table}  # {loaded.origins.get(section, 'default')}")
            continue
        for name in fields:
            origin = loaded.origins.get(f"{section}.{name}", "default")
            lines.append(f"{section}.{name} = {getattr(table, name)}  # {origin}")
    return lines


@main.group(cls=UpByDefault, elsewhere={"directory": "hub.cli_directory:sandbox_directory"})
def sandbox() -> None:
    """Run the whole ecosystem on this machine: Trust Framework, Hub, bank, two TPPs. `up` may be left out."""


DIR_OPTION: Final = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path(".sandbox"),
    show_default=True,
    help="Where keys and data are made and kept.",
)


def _redirect_uris(
    _context: click.Context, _option: click.Parameter, uris: tuple[str, ...]
) -> tuple[str, ...]:
    for uri in uris:
        clean = uri.isascii() and uri.isprintable() and not set(uri) & {" ", "#"}
        if not (clean and _is_https(uri)):
            raise click.BadParameter(f"{uri!r}: expected an https URL without a fragment")
    return uris


def _is_https(uri: str) -> bool:
    try:
        found = urlsplit(uri)
    except ValueError:  # a bracket that does not end
        return False
    return found.scheme == "https" and bool(found.netloc)


@sandbox.command("up")
@DIR_OPTION
@click.option(
    "--port-base",
    type=click.IntRange(1024, 65485),
    default=8400,
    show_default=True,
    help="The first of at most 50 ports on loopback.",
)
@click.option(
    "--no-journey", is_flag=True, help="Do not run the narrated journey once everything is up."
)
@click.option(
    "--exit-after-journey",
    is_flag=True,
    help="Stop when the journey is done; its result is the exit status.",
)
@click.option(
    "--tpp-redirect-uri",
    "tpp_redirect_uris",
    multiple=True,
    metavar="URI",
    callback=_redirect_uris,
    help="Register this redirect URI for both TPPs too (https; may be repeated).",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 16),
    default=1,
    show_default=True,
    help="Gateway processes of the Hub.",
)
@click.option(
    "--profile",
    type=click.Choice(["uae", "general", "both"]),
    default="uae",
    show_default=True,
    help="Which FAPI profile the Hub's tenant runs; both starts two tenants.",
)
@click.option(
    "--bank",
    "bank_url",
    metavar="URL",
    default="",
    help="Your own Ozone Connect instead of the model bank.",
)
@click.option(
    "--bank-authorization-endpoint",
    metavar="URL",
    default="",
    help="Your own authorization page; with --bank.",
)
@click.option(
    "--bank-ca",
    type=click.Path(path_type=Path, exists=True),
    help="CA bundle of your own bank's certificate.",
)
@click.option(
    "--tpp-cert",
    type=click.Path(path_type=Path, exists=True),
    help="Your own TPP's transport certificate; its subject has O, OU (organisation id), CN (client id).",
)
@click.option(
    "--tpp-jwks",
    type=click.Path(path_type=Path, exists=True),
    help="Your own TPP's key set; with --tpp-cert.",
)
def sandbox_up(no_journey: bool, **options: Any) -> None:
    """Start the sandbox and stay until Ctrl-C.

    The first run makes keys, certificates and data under --dir; later runs use them again. DIR/sandbox.json tells an
    outside client everything it needs. Everything listens on loopback only; nothing of it is fit for production.
    """

    def start() -> int:
        from hub.sandbox.manifest import SandboxOptions  # noqa: PLC0415
        from hub.sandbox.up import up  # noqa: PLC0415

        return up(SandboxOptions(journey=not no_journey, **options))

    run(start)


@sandbox.command(
    "time",  # without -h: -1h holds one
    context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]},
)
@DIR_OPTION
@click.argument("amount", metavar="[+|-]N[s|m|h|d]")
def sandbox_time(folder: Path, amount: str) -> None:
    """Move the clock of a running sandbox, as in `hub sandbox time +10m`: tokens, consents and certificates age."""
    seconds = seconds_of(amount)

    def start() -> int:
        from hub.sandbox.control import ask  # noqa: PLC0415

        answer = trio.run(ask, folder, {"do": "time", "add": seconds})
        if not answer.get("ok"):
            click.echo(f"hub: {answer.get('error')}", err=True)
            return FAILED
        now = datetime.fromtimestamp(answer["now"], UTC).isoformat(timespec="seconds")
        click.echo(f"the sandbox's clock now stands at {now}")
        return 0

    run(start)


def seconds_of(amount: str) -> int:
    """Read ``+10m`` as seconds.

    Raises:
        click.BadParameter: It is not a number with one of the units s, m, h, d.
    """
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    found = re.fullmatch(r"([+-]?[0-9]{1,12})([smhd]?)", amount)
    if found is None:
        raise click.BadParameter(f"{amount!r}: expected a number with s, m, h or d, like +10m")
    return int(found[1]) * units[found[2] or "s"]


@main.group(
    cls=ImportedWhenAsked,
    elsewhere={
        "sign": "hub.cli_tpp:sign_command",
        "encrypt": "hub.cli_tpp:encrypt_command",
        "decode": "hub.cli_tpp:decode",
        "assertion": "hub.cli_tpp:assertion",
        "request-object": "hub.cli_tpp:request_object",
    },
)
def tpp() -> None:
    """Act as a TPP against a running sandbox."""


JOURNEYS: Final = ("payment", "plans", "revoke", "approvers", "open_data", "payee", "file")
"""Instead of the one to account data."""
UNHEARD: Final = {
    "plans": ("decline",),
    "revoke": ("decline",),
    "approvers": ("customer",),
    "open_data": ("customer", "decline"),
}
"""Options that a journey has no use for: who approves is not chosen, or nobody is asked."""


@tpp.command("journey")
@click.option(
    "--sandbox",
    "folder",
    type=click.Path(path_type=Path),
    default=Path(".sandbox"),
    show_default=True,
    help="The folder of the running sandbox.",
)
@click.option(
    "--customer", default="", help="Which customer consents (a user name of sandbox.json)."
)
@click.option("--decline", is_flag=True, help="The customer declines.")
@click.option("--payment", is_flag=True, help="Make one payment instead of reading account data.")
@click.option(
    "--plans", is_flag=True, help="Take a payment plan of each kind to its limit instead."
)
@click.option("--revoke", is_flag=True, help="Take consents back instead, one from either side.")
@click.option("--approvers", is_flag=True, help="Take one payment past two signatories instead.")
@click.option("--open-data", is_flag=True, help="Read products and ATMs and leave a lead instead.")
@click.option("--payee", is_flag=True, help="Confirm a payee, pay, and find the refund account.")
@click.option("--file", is_flag=True, help="Pay a file of payments instead.")
@click.option("--show-http", is_flag=True, help="Print each exchange, secrets shortened.")
def tpp_journey(folder: Path, **options: Any) -> None:
    """Take a customer's consent all the way to account data, or to payments, telling each step."""
    asked = [name for name in JOURNEYS if options[name]]
    if len(asked) > 1:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in asked)
        raise click.UsageError(f"{flags}: expected one journey at a time")
    for name, given in UNHEARD.items():
        ignored = [other for other in given if name in asked and options[other]]
        if ignored:
            raise click.UsageError(f"--{name.replace('_', '-')} takes no --{ignored[0]}")

    def start() -> int:
        from hub.sandbox.journey import run_journey  # noqa: PLC0415

        return trio.run(lambda: run_journey(folder, tell=click.echo, **options))

    run(start)
