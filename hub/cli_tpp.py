"""``hub tpp sign|encrypt|decode|assertion|request-object``: what a TPP signs and seals, made by hand; no key leaves the machine."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

import click
import orjson

from hub.cli_run import run
from hub.model.clock import Clock, Dice
from hub.node.wall import SystemDice, WallClock
from hub.protocol.jose import (
    JoseFault,
    Parsed,
    PrivateKey,
    decode_b64url,
    encrypt,
    load_key_set,
    load_private_key,
    parse,
    sign,
    verify,
)

_ALGORITHMS: Final = ("PS256", "ES256", "EdDSA")
_ASSERTION_S: Final = 60
_REQUEST_S: Final = 300
_FILE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)
_KEY: Final = click.option(
    "--key", "key_file", type=_FILE, required=True, metavar="PEM", help="Your private key."
)
_KID: Final = click.option("--kid", required=True, help="Its id in your key set.")
_AUDIENCE: Final = click.option("--audience", required=True, help="The Hub's issuer.")
_CLIENT: Final = click.option("--client-id", required=True)


def _refuse(why: str) -> NoReturn:
    raise click.ClickException(why)


def _private(path: Path, kid: str) -> PrivateKey:
    key = load_private_key(path.read_bytes())
    if isinstance(key, JoseFault):
        _refuse(f"{path}: {key.why}")
    return PrivateKey(kid=kid, key=key.key)


def _read(path: str) -> bytes:
    return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()


def _object(octets: bytes, where: str) -> dict[str, Any]:
    try:
        value = orjson.loads(octets)
    except orjson.JSONDecodeError:
        _refuse(f"{where}: not JSON")
    if not isinstance(value, dict):
        _refuse(f"{where}: expected a JSON object")
    return value


def _sign(claims: dict[str, Any], key: PrivateKey, alg: str, typ: str) -> str:
    try:
        return sign(claims, key, alg=alg, typ=typ)
    except ValueError as error:
        _refuse(str(error))


def message_claims(
    message: dict[str, Any], client_id: str, audience: str, clock: Clock
) -> dict[str, Any]:
    """Return the claims of a signed body (message signing): the body is ``message``."""
    now = clock.now()
    times = {"iat": now, "nbf": now, "exp": now + _REQUEST_S}
    return {"iss": client_id, "aud": audience, **times, "message": message}


def assertion_claims(client_id: str, audience: str, clock: Clock, dice: Dice) -> dict[str, Any]:
    """Return the claims of a client assertion (RFC 7523 section 3)."""
    now = clock.now()
    times = {"iat": now, "exp": now + _ASSERTION_S}
    return {"iss": client_id, "sub": client_id, "aud": audience, **times, "jti": dice.uuid()}


def request_claims(
    parameters: dict[str, Any], client_id: str, audience: str, clock: Clock, dice: Dice
) -> dict[str, Any]:
    """Return the claims of a request object (RFC 9101 section 4); ``parameters`` go before."""
    now = clock.now()
    times = {"iat": now, "nbf": now, "exp": now + _REQUEST_S}
    known = {"iss": client_id, "client_id": client_id, "aud": audience, **times}
    return {**known, "jti": dice.uuid(), "response_type": "code", **parameters}


def _told(make: Callable[[], str]) -> None:
    def start() -> int:
        click.echo(make())
        return 0

    run(start)


@click.command("sign")
@click.argument("body", default="-")
@_KEY
@_KID
@click.option("--alg", type=click.Choice(_ALGORITHMS), default="PS256", show_default=True)
@click.option("--typ", default="JWT", show_default=True)
@click.option("--client-id", default="", help="Wrap BODY as the message of a signed body.")
@click.option("--audience", default="", help="The Hub's issuer; with --client-id.")
def sign_command(
    body: str, key_file: Path, kid: str, alg: str, typ: str, client_id: str, audience: str
) -> None:
    """Sign the JSON object in the file BODY (- for standard input); print a compact JWS.

    Without --client-id the object is the claims; with it, it is the message of a signed body.
    """

    if bool(client_id) is not bool(audience):
        raise click.UsageError("--client-id and --audience belong together; give both or none")

    def make() -> str:
        claims = _object(_read(body), body)
        if client_id:
            claims = message_claims(claims, client_id, audience, WallClock())
        return _sign(claims, _private(key_file, kid), alg, typ)

    _told(make)


@click.command("encrypt")
@click.argument("content", default="-")
@click.option("--jwks", type=_FILE, required=True, help="The receiver's key set.")
@click.option("--kid", default="", help="Which of its encryption keys; the last by default.")
def encrypt_command(content: str, jwks: Path, kid: str) -> None:
    """Seal the file CONTENT (a JWS, - for standard input); print a compact JWE (RSA-OAEP-256, A256GCM)."""

    def make() -> str:
        keys = load_key_set(jwks.read_bytes())
        if isinstance(keys, JoseFault):
            _refuse(f"{jwks}: {keys.why}")
        usable = [key for key in keys if key.use == "enc" and kid in {"", key.kid}]
        if not usable:
            _refuse(f"{jwks}: no such encryption key")
        return encrypt(_read(content).strip(), usable[-1], cty="JWT")

    _told(make)


@click.command("decode")
@click.argument("token", default="-")
@click.option("--jwks", type=_FILE, help="Verify with this key set.")
def decode(token: str, jwks: Path | None) -> None:
    """Take the JWS or JWE in the file TOKEN apart (- for standard input); with --jwks, verify a JWS too.

    Exit status 1 where the signature is not of a key in the set.
    """

    def start() -> int:
        text = _read(token).strip()
        if text.count(b".") == 4:
            header = decode_b64url(text.split(b".")[0])
            click.echo(orjson.dumps({"header": _object(header or b"", token)}))
            return 0
        parsed = parse(text)
        if isinstance(parsed, JoseFault):
            _refuse(f"{token}: {parsed.why}")
        shown = {"header": dict(parsed.header), "claims": dict(parsed.claims)}
        click.echo(orjson.dumps(shown, option=orjson.OPT_INDENT_2))
        return 0 if jwks is None else _verified(parsed, jwks)

    run(start)


def _verified(parsed: Parsed, jwks: Path) -> int:
    keys = load_key_set(jwks.read_bytes())
    if isinstance(keys, JoseFault):
        _refuse(f"{jwks}: {keys.why}")
    kid = parsed.header.get("kid")
    good = any(k.kid == kid and verify(parsed, k, _ALGORITHMS) is None for k in keys)
    click.echo("the signature is good" if good else "the signature is NOT of a key in the set")
    return 0 if good else 1


@click.command("assertion")
@_CLIENT
@_AUDIENCE
@_KEY
@_KID
def assertion(client_id: str, audience: str, key_file: Path, kid: str) -> None:
    """Print a client assertion for one call (private_key_jwt, PS256), good for a minute."""
    _told(
        lambda: _sign(
            assertion_claims(client_id, audience, WallClock(), SystemDice()),
            _private(key_file, kid),
            "PS256",
            "JWT",
        )
    )


@click.command("request-object")
@click.argument("parameters", default="-")
@_CLIENT
@_AUDIENCE
@_KEY
@_KID
def request_object(
    parameters: str, client_id: str, audience: str, key_file: Path, kid: str
) -> None:
    """Print a signed request object for /par; the file PARAMETERS holds scope, redirect_uri, authorization_details, ..."""
    _told(
        lambda: _sign(
            request_claims(
                _object(_read(parameters), parameters),
                client_id,
                audience,
                WallClock(),
                SystemDice(),
            ),
            _private(key_file, kid),
            "PS256",
            "oauth-authz-req+jwt",
        )
    )
