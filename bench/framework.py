"""A large Trust Framework in a process of its own: ``python -m bench.framework FOLDER ORGANISATIONS CLIENTS``.

It prints one line of JSON when it serves (addresses, ids, the Hub's certificate), changes one organisation for each line on its
standard input, and ends with it. What it answered once it remembers: its own work is not what is measured.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import trio
from joserfc.jwk import RSAKey

from hub.model.clock import SeededDice
from hub.node.wall import WallClock
from hub.sandbox.directory import Directory
from hub.sandbox.directory.register import Application, Key, Organisation, Register
from hub.sandbox.pki import Pki
from hub.sandbox.server import SiteHandler, SiteRequest, SiteResponse, serve_site
from hub.sandbox.tls import server_context

KEYS = 3
ROLES = ("BDSP", "BSIP")


def large_register(organisations: int, clients: int, dice: SeededDice) -> Register:
    """Make a register in which the first ``clients`` organisations have an application with three keys."""
    public = [RSAKey.generate_key(2048).as_dict(private=False) for _ in range(KEYS)]
    held: dict[str, Organisation] = {}
    for number in range(organisations):
        organisation_id, client_id = dice.uuid(), dice.uuid()
        applications = {}
        if number < clients:
            keys = tuple(
                Key(
                    kid=f"{client_id.replace('-', '')}{at:05d}",
                    key_type="OPF UAE CLIENT SIGNING",
                    jwk={**jwk, "kid": f"{client_id.replace('-', '')}{at:05d}", "use": "sig"},
                )
                for at, jwk in enumerate(public)
            )
            applications[client_id] = Application(
                client_id=client_id,
                software_statement_id=client_id,
                organisation_id=organisation_id,
                name=f"Application {number}",
                roles=ROLES,
                redirect_uris=("https://tpp.example/callback",),
                keys=keys,
            )
        held[organisation_id] = Organisation(
            id=organisation_id,
            name=f"Organisation {number} FZ-LLC",
            roles=ROLES,
            applications=applications,
        )
    return Register(organisations=held)


class Remembered:
    """Answer again what was answered before, with a validator; forget the list when an organisation changes."""

    def __init__(self, handler: SiteHandler) -> None:
        self._handler = handler
        self._held: dict[str, SiteResponse] = {}

    async def __call__(self, request: SiteRequest) -> SiteResponse:
        """Answer one request."""
        if request.method != "GET":
            return await self._handler(request)
        held = self._held.get(request.path)
        if held is None:
            plain = msgspec.structs.replace(request, headers=_unconditional(request))
            answer = await self._handler(plain)
            etag = f'"{hashlib.sha256(answer.body).hexdigest()[:32]}"'
            kept = tuple((k, v) for k, v in answer.headers if k != "etag")
            held = msgspec.structs.replace(answer, headers=(*kept, ("etag", etag)))
            if answer.status == 200:
                self._held[request.path] = held
        etag = dict(held.headers)["etag"]
        if request.header("if-none-match") == etag:
            return SiteResponse(status=304, headers=(("etag", etag),))
        return held

    def forget(self) -> None:
        """Forget the list."""
        self._held.pop("/organisations", None)


def _unconditional(request: SiteRequest) -> tuple[tuple[str, str], ...]:
    return tuple((k, v) for k, v in request.headers if k.lower() != "if-none-match")


async def main(folder: Path, organisations: int, clients: int) -> None:
    """Serve until standard input ends."""
    clock, dice = WallClock(), SeededDice("bench framework")
    pki = Pki.open(folder / "pki", clock)
    operator, hub = dice.uuid(), dice.uuid()
    names: dict[str, Any] = {"organisation_id": operator, "organisation_name": "Hub Operator"}
    server = pki.issue("S1", **names, folder=folder / "keys", name="server")
    client = pki.issue("C4", **names, client_id=hub, folder=folder / "keys", name="c4")
    directory = Directory.open(
        folder / "directory",
        pki=pki,
        clock=clock,
        dice=dice,
        public_base="https://localhost",
        api_base="https://localhost",
        pki_base="http://localhost",
    )
    directory.add_organisation(organisation_id=operator, name="Hub Operator", size="TSP")
    directory.add_application(
        organisation_id=operator, client_id=hub, name="Hub", roles=(), redirect_uris=()
    )
    directory.add_key(operator, client, client_id=hub)
    large = large_register(organisations, clients, dice)
    everybody = {**large.organisations, **directory.register.organisations}
    directory.install(Register(organisations=everybody))
    api = Remembered(directory.api_handler)
    async with trio.open_nursery() as nursery:

        async def site(handler: Any, kind: str) -> int:
            tls = None if kind == "plain" else context(kind)
            serve = lambda **kw: serve_site(handler, host="localhost", port=0, tls=tls, **kw)  # noqa: E731
            return int(await nursery.start(lambda *, task_status: serve(task_status=task_status)))

        def context(kind: str) -> Any:
            return server_context(server.cert_path, server.key_path, pki.ca_bundle, kind)

        told = {
            "public": f"https://localhost:{await site(Remembered(directory.public_handler), 'none')}",
            "api": f"https://localhost:{await site(api, 'required')}",
            "pki": f"http://localhost:{await site(directory.pki_handler, 'plain')}",
            "ca": str(pki.ca_bundle),
            "certificate": str(client.cert_path),
            "key": str(client.key_path),
            "client_id": hub,
            "clients": {c: o.id for o in large.organisations.values() for c in o.applications},
        }
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        first = next(iter(large.organisations))
        async for _ in trio.wrap_file(sys.stdin):
            changed = directory.register.organisation(first)
            status = "Withdrawn" if changed.status == "Active" else "Active"
            after = msgspec.structs.replace(changed, status=status)
            directory.install(directory.register.with_organisation(after))
            api.forget()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
