"""A Trust Framework over TLS for the tests of its mirror, with one bank and one TPP; keys are made once per run."""

import functools
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio
from cryptography.hazmat.primitives import serialization

from hub.config import Limits, Tenant, TrustSettings, default_limits
from hub.model.clock import FixedClock, SeededDice
from hub.model.http import Request
from hub.model.terms import Face
from hub.observe import Observer
from hub.protocol.peer import read_peer
from hub.sandbox.directory import Directory
from hub.sandbox.pki import Pki, read_certificate
from hub.sandbox.server import Faults, serve_site
from hub.sandbox.tls import server_context
from hub.state.memory import MemoryKeeper
from hub.trust.seal import Seal
from hub.trust.trust import Trust

NOW = 1_795_000_000
BANK = "0f7f2ffa-3af2-4b5a-9f54-4d30a3a1f1a1"
BANK_APP = "9d0b9a2c-5a3c-4c7e-8a66-1c2d3e4f5a6b"
OPERATOR = "8c7f2ffa-3af2-4b5a-9f54-4d30a3a1f1a8"
HUB_APP = "8d0b9a2c-5a3c-4c7e-8a66-1c2d3e4f5a68"
ORG = "1a7f2ffa-3af2-4b5a-9f54-4d30a3a1f1a2"
APP = "5d0b9a2c-5a3c-4c7e-8a66-1c2d3e4f5a6b"
OTHER_APP = "6d0b9a2c-5a3c-4c7e-8a66-1c2d3e4f5a6c"
NAMES = {BANK: "Dune Bank", OPERATOR: "Hub Operator", ORG: "Rain, FZ-LLC"}


@functools.cache
def material():
    """Make the PKI and everybody's certificates, once."""
    folder = Path(tempfile.mkdtemp(prefix="trust-"))
    pki = Pki.open(folder / "pki", FixedClock(NOW))

    def issue(kind, organisation, client="", name="", **more):
        return pki.issue(
            kind,
            organisation_id=organisation,
            organisation_name=NAMES[organisation],
            client_id=client,
            folder=folder / "keys",
            name=name or f"{kind}-{client or organisation}",
            **more,
        )

    keys = {
        "server": issue("S1", OPERATOR),
        "c4": issue("C4", OPERATOR, HUB_APP),
        "c1": issue("C1", ORG, APP),
        "c1b": issue("C1", ORG, OTHER_APP),
        "stolen": issue("C1", BANK, APP, "wrong-organisation"),
        "sig1": issue("Sig1", ORG, APP),
        "sig1-new": issue("Sig1", ORG, APP, "sig1-new"),
        "enc2": issue("Enc2", ORG, APP),
        "sig4": issue("Sig4", BANK, BANK_APP),
    }
    return pki, keys


def peer_of(name, **changes):
    """Return the peer behind one of the certificates."""
    _, keys = material()
    der = read_certificate(keys[name].cert_path).public_bytes(serialization.Encoding.DER)
    peer = read_peer(der, address="127.0.0.1", tls_version="TLSv1.3")
    return msgspec.structs.replace(peer, **changes)


class World:
    """Hold the framework, the Hub's view of it, and what the tests turn."""

    def __init__(self, folder, clock):
        pki, self.keys = material()
        self.clock = clock
        self.folder = folder
        self.pki = Pki.open(pki.folder, clock)
        self.faults = {"public": Faults(), "api": Faults(), "pki": Faults()}
        self.asked = []
        self.observer = Observer(clock, log=False)
        self.keeper = MemoryKeeper(clock=clock)

    def describe(self):
        """Tell the directory of everybody."""
        d = self.directory
        d.add_organisation(organisation_id=BANK, name=NAMES[BANK], size="LFI", roles=["LFI"])
        d.add_organisation(organisation_id=OPERATOR, name=NAMES[OPERATOR], size="TSP")
        d.add_organisation(organisation_id=ORG, name=NAMES[ORG], roles=["BDSP", "BSIP"])
        for org, app in ((BANK, BANK_APP), (OPERATOR, HUB_APP)):
            d.add_application(
                organisation_id=org, client_id=app, name="app", roles=[], redirect_uris=[]
            )
        for app in (APP, OTHER_APP):
            d.add_application(
                organisation_id=ORG,
                client_id=app,
                name="Rain",
                roles=["BDSP", "BSIP"],
                redirect_uris=["https://tpp.example/cb"],
                webhook_uris=["https://tpp.example/hook"],
            )
        d.add_key(OPERATOR, self.keys["c4"], client_id=HUB_APP)
        d.add_key(BANK, self.keys["sig4"], client_id=BANK_APP)
        for name in ("c1", "sig1", "enc2"):
            d.add_key(ORG, self.keys[name], client_id=APP)

    def settings(self, **changes):
        """Return settings that point at the framework."""
        made = TrustSettings(
            participants=f"{self.directory.bases.public}/participants",
            keystore=self.directory.bases.public,
            api=self.directory.bases.api,
            token_endpoint=f"{self.directory.bases.api}/token",
            client_id=HUB_APP,
            ca=self.pki.ca_bundle,
            certificate=self.keys["c4"].cert_path,
            key=self.keys["c4"].key_path,
            crl=f"{self.directory.bases.pki}/issuer.crl",
            auto_activate=True,
        )
        return msgspec.structs.replace(made, **changes)

    def trust(self, limits=None, also=(), leader=True, watched=None, **changes):
        """Make the Hub's side."""
        return Trust(
            settings=self.settings(**changes),
            tenant=Tenant(
                provider_id="dune",
                organisation_id=BANK,
                organisation_name=NAMES[BANK],
                issuer="https://localhost:24000",
                resource_base="https://localhost:24000",
                environment="sandbox",
            ),
            keeper=self.keeper,
            clock=self.clock,
            dice=SeededDice("trust"),
            observer=self.observer,
            limits=Limits(**(default_limits() | (limits or {}))),
            also=also,
            leader=leader,
            seal=Seal.of_folder(self.folder, SeededDice("seal")),
            watched=watched or {},
        )

    def break_everything(self, plan):
        """Turn the same fault on at all three sites."""
        for faults in self.faults.values():
            faults.set(plan)

    def mend(self):
        """Turn all faults off."""
        for faults in self.faults.values():
            faults.clear()


@asynccontextmanager
async def open_world(folder):
    """Serve a framework on loopback; yield its World."""
    clock = FixedClock(NOW)
    world = World(folder, clock)
    issued = world.keys["server"]

    def counted(name):
        async def handler(request):
            world.asked.append((name, request.path))
            return await getattr(world.directory, f"{name}_handler")(request)

        return handler

    def context(client_cert):
        return server_context(issued.cert_path, issued.key_path, world.pki.ca_bundle, client_cert)

    async with trio.open_nursery() as nursery:

        async def serve(name, tls):
            start = functools.partial(
                serve_site,
                counted(name),
                host="127.0.0.1",
                port=0,
                tls=tls,
                faults=world.faults[name],
            )
            return await nursery.start(start)

        public, api, pki = (
            await serve("public", context("none")),
            await serve("api", context("required")),
            await serve("pki", None),
        )
        world.directory = Directory.open(
            folder / "directory",
            pki=world.pki,
            clock=clock,
            dice=SeededDice("directory"),
            public_base=f"https://127.0.0.1:{public}",
            api_base=f"https://127.0.0.1:{api}",
            pki_base=f"http://127.0.0.1:{pki}",
        )
        world.describe()
        try:
            yield world
        finally:
            for name in ("c1", "sig1", "enc2", "c4", "sig1-new"):
                serial = read_certificate(world.keys[name].cert_path).serial_number
                world.pki.restore(serial)
            world.observer.close()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def running(trust):
    """Run the mirror in the background."""
    async with trio.open_nursery() as nursery:
        await nursery.start(trust.run)
        try:
            yield trust
        finally:
            nursery.cancel_scope.cancel()


def registration(peer, body=b"", **headers):
    """Return the request of a registration."""
    return Request(
        face=Face.TPP,
        method="POST",
        authority="localhost",
        path="/tpp-registration",
        headers=tuple((k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()),
        body=body,
        peer=peer,
    )


async def enrol(trust, name="c1", **more):
    """Register a certificate's client."""
    handler = trust.tpp_routes()["POST", "/tpp-registration"]
    return await handler(registration(peer_of(name), **more))


async def refreshed(trust):
    """Let one round pass."""
    with trio.fail_after(20):
        return await trust.refresh()
