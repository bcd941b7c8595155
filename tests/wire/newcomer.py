"""A TPP that joins a running sandbox for one module's tests, so that what is done to it disturbs nobody else."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import msgspec
import trio

from hub.node.wall import SystemDice
from hub.sandbox.clock import SharedClock
from hub.sandbox.control import ask
from hub.sandbox.manifest import TppSection
from hub.sandbox.pki import read_certificate, x5t_s256
from hub.sandbox.tpp import Discovery, Identity, Refused, Tokens, Tpp, Wire
from tests.wire.world import Actor, Sandbox


async def do(sandbox: Sandbox, act: str, **members: str) -> dict:
    """Carry out one act of the directory."""
    answer = await ask(sandbox.folder, {"do": "directory", "act": act, **members})
    assert answer["ok"], answer
    return answer


async def fault(sandbox: Sandbox, at: str, **plan: object) -> None:
    """Set a fault of a site, or clear it."""
    answer = await ask(sandbox.folder, {"do": "fault", "at": at, "plan": plan or None})
    assert answer["ok"], answer


async def operator(sandbox: Sandbox, do: str, **members: object) -> dict:
    """Send one command to the Hub's own operator socket."""
    path = sandbox.folder / "state" / "admin.sock"
    with trio.fail_after(20):
        async with await trio.open_unix_socket(str(path)) as stream:
            await stream.send_all(msgspec.json.encode({"do": do, **members}) + b"\n")
            held = b""
            while not held.endswith(b"\n"):
                piece = await stream.receive_some()
                assert piece, "the Hub closed its operator's socket"
                held += piece
    return msgspec.json.decode(held)


def join(sandbox: Sandbox, name: str) -> TppSection:
    """Add an organisation with an application and its three keys; return its section as the manifest would have it."""

    async def joining() -> TppSection:
        first = sandbox.manifest.tpps[0]
        organisation = (await do(sandbox, "new_organisation", name=name))["organisation_id"]
        client = await do(
            sandbox,
            "new_application",
            organisation_id=organisation,
            name=name,
            redirect_uri=first.redirect_uris[0],
        )
        keys = {
            kind: await do(sandbox, "new_key", client_id=client["client_id"], kind=kind)
            for kind in ("transport", "signing", "encryption")
        }
        return msgspec.structs.replace(
            first,
            name=name,
            client_id=client["client_id"],
            organisation_id=organisation,
            transport_cert=keys["transport"]["certificate"],
            transport_key=keys["transport"]["key"],
            signing_key=keys["signing"]["key"],
            signing_kid=keys["signing"]["kid"],
            encryption_key=keys["encryption"]["key"],
            encryption_kid=keys["encryption"]["kid"],
        )

    return trio.run(joining)


class Newcomer(Actor):
    """Act as a TPP of a given section."""

    def __init__(self, sandbox: Sandbox, tpp: Tpp, discovery: Discovery, section: TppSection):
        super().__init__(sandbox, tpp, discovery, 0)
        self.section = section


@asynccontextmanager
async def newcomer(
    sandbox: Sandbox, section: TppSection, issuer: str = ""
) -> AsyncIterator[Newcomer]:
    """Let a TPP of that section act, over connections of its own."""
    manifest = sandbox.manifest
    clock = SharedClock.open(sandbox.folder / "run/clock")
    identity = Identity.read(section, sandbox.folder, manifest.ca_bundle, clock, SystemDice())
    try:
        async with Wire.of(identity) as wire:
            tpp = Tpp(identity, wire)
            discovery = await tpp.discover(issuer or manifest.hub.issuer)
            assert isinstance(discovery, Discovery), discovery
            yield Newcomer(sandbox, tpp, discovery, section)
    finally:
        clock.close()


async def three_places(acting: Newcomer, access_token: str) -> dict[str, tuple[int, str]]:
    """Try PAR, token and a resource; return status and code of each, 201 and 200 for those that pass."""
    from hub.sandbox.tpp import Pushed, data_sharing_consent
    from hub.sandbox.tpp.consent import DATA_SHARING_SCOPE, PERMISSIONS

    now = acting.identity.clock.now()
    detail = data_sharing_consent(
        consent_id=acting.identity.dice.uuid(), expires=now + 86_400, permissions=PERMISSIONS
    )
    pushed = await acting.tpp.push(acting.discovery, detail, DATA_SHARING_SCOPE)
    tokens = await acting.tpp.client_credentials(acting.discovery, "openid accounts")
    got = await acting.get("/accounts", access_token)
    assert got.status != 401 or got.body == b""
    return {
        "par": (201, "") if isinstance(pushed, Pushed) else (pushed.status, pushed.code),
        "token": (200, "") if isinstance(tokens, Tokens) else (tokens.status, tokens.code),
        "resource": (got.status, _code(got.body)),
    }


def _code(body: bytes) -> str:
    decoded = msgspec.json.decode(body) if body else {}
    errors = decoded.get("Errors") if isinstance(decoded, dict) else None
    return errors[0].get("Code", "") if errors else ""


def thumbprint(path: Path | str) -> str:
    """Return the key id of a certificate."""
    return x5t_s256(read_certificate(Path(path)))


def log_of(state: Path, last: int = 200) -> list[dict]:
    """Return the last audit events of a tenant, oldest first, from its database."""
    with closing(sqlite3.connect(f"file:{state}/hub.db?mode=ro", uri=True)) as store:
        rows = store.execute("SELECT leaf FROM event ORDER BY position DESC LIMIT ?", (last,))
        return [msgspec.json.decode(leaf) for (leaf,) in rows.fetchall()][::-1]


def events(state: Path, x5t: str, last: int = 3) -> list[dict]:
    """Return the last audit events of whoever presented a certificate, oldest first."""
    return [e for e in log_of(state) if e.get("x5t_s256") == x5t][-last:]


__all__ = [
    "Newcomer",
    "Refused",
    "do",
    "events",
    "fault",
    "join",
    "log_of",
    "newcomer",
    "operator",
    "three_places",
    "thumbprint",
]
