"""The whole world of a sandbox: directory, bank and TPPs in this process, the Hub in its own.

Theory. The world is a nursery: every counterparty's site is a task of it, the Hub's process is watched by one, and
whatever fails takes everything down; nothing is left running and no lock is kept. Things start in the order they
need each other (PKI and keys, directory, bank, Hub, registrations) and end all at once, the Hub first. What is made
on the first run (keys, ids, ledger, the Hub's store, the clock's offset) is used again by later ones.
"""

import ssl
from collections.abc import Callable
from typing import Final, final

import httpx
import trio

from hub.node.errors import StartError
from hub.node.wall import SystemDice
from hub.sandbox.bank.bank import Bank
from hub.sandbox.clock import SharedClock
from hub.sandbox.configuration import (
    AUTHORIZATION_PATH,
    BankAddress,
    bank_address,
    configuration,
    write_configuration,
)
from hub.sandbox.control import CONTROL_PATH, serve_control, world_actions
from hub.sandbox.directory import Directory
from hub.sandbox.enrolment import enrol
from hub.sandbox.folder import owned_folder
from hub.sandbox.hub_child import HubChild, start_hub
from hub.sandbox.introduction import describe_world
from hub.sandbox.knobs import knob_actions
from hub.sandbox.manifest import Manifest, SandboxOptions, write_manifest
from hub.sandbox.parties import OPERATOR, PROVIDER_ID, Keyring, issue_keys
from hub.sandbox.pki import Pki
from hub.sandbox.places import LOOPBACK, Places, check_ports
from hub.sandbox.server import Faults, SiteHandler, serve_site
from hub.sandbox.tls import server_context
from hub.sandbox.tpp import Identity, Tpp, Wire

Tell = Callable[[str], object]
REGISTER_S: Final = 15.0


@final
class World:
    """A world that is up: what the manifest says, and how to end it."""

    def __init__(self, manifest: Manifest, places: Places, clock: SharedClock) -> None:
        """Hold what others may want to know of it."""
        self.manifest = manifest
        self.places = places
        self.clock = clock
        self._over = trio.Event()

    def stop(self) -> None:
        """Ask the world to end."""
        self._over.set()

    async def over(self) -> None:
        """Wait until somebody asked for the end."""
        await self._over.wait()


async def run_world(
    options: SandboxOptions,
    *,
    tell: Tell,
    task_status: trio.TaskStatus[World] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Start a world, serve it until it is asked to end, and leave nothing behind.

    Args:
        options: Of ``hub sandbox up``.
        tell: Takes one line of text.
        task_status: Told the World once everything answers and both TPPs are registered.

    Raises:
        StartError: It cannot start, or the Hub ended; one line (possibly in an exception group).

    Cancellation: the Hub is stopped first (shielded, bounded), then everything else.
    """
    if bool(options.bank_url) != bool(options.bank_authorization_endpoint):
        raise StartError("--bank and --bank-authorization-endpoint belong together; give both")
    with owned_folder(options.folder) as folder:
        places = Places(folder=folder, base=options.port_base)
        check_ports(places)
        clock = SharedClock.create(places.clock)
        try:
            await _Builder(options, places, clock, tell).run(task_status)
        finally:
            clock.close()


@final
class _Builder:
    """Build one world, step by step."""

    def __init__(
        self, options: SandboxOptions, places: Places, clock: SharedClock, tell: Tell
    ) -> None:
        self._options = options
        self._places = places
        self._clock = clock
        self._tell = tell
        self._dice = SystemDice()
        self._bank: Bank | None = None
        self._directory: Directory | None = None

    async def run(self, task_status: trio.TaskStatus[World]) -> None:
        places = self._places
        pki = await trio.to_thread.run_sync(
            lambda: Pki.open(places.folder / "pki", self._clock, base=places.http(12))
        )
        keys = await trio.to_thread.run_sync(issue_keys, pki, places)
        bank = bank_address(self._options, places, pki.ca_bundle)
        async with trio.open_nursery() as nursery:
            await self._start_directory(nursery, pki, keys)
            settings = configuration(self._options, places, keys, pki.ca_bundle, bank)
            write_configuration(settings, places.hub_toml)
            hub = await start_hub(places)
            try:
                # The Hub needs the directory to be ready, but not the bank: they open at the same time.
                await self._start_bank(nursery, pki, keys)
                await hub.ready()
                self._tell(f"Hub: {places.https(0)} (TPPs), {places.https(1)} (the bank)")
                manifest = self._describe(pki, keys, bank, hub)
                world = World(manifest, places, self._clock)
                await self._register(manifest)
                write_manifest(manifest, places.folder)
                nursery.start_soon(_watch, hub, places)
                if self._bank is not None:
                    nursery.start_soon(self._bank.settle_payments)
                await self._start_control(nursery, world)
                task_status.started(world)
                await world.over()
            finally:
                await hub.stop()
                await self._close_bank()
            nursery.cancel_scope.cancel()

    async def _close_bank(self) -> None:
        if self._bank is not None:
            with trio.move_on_after(1, shield=True):
                await self._bank.aclose()

    async def _start_directory(self, nursery: trio.Nursery, pki: Pki, keys: Keyring) -> None:
        places = self._places
        self._directory = directory = Directory.open(
            places.folder / "directory",
            pki=pki,
            clock=self._clock,
            dice=self._dice,
            public_base=places.https(10),
            api_base=places.https(11),
            pki_base=places.http(12),
        )
        enrol(directory, keys, self._options, places)
        files = (keys.directory.cert_path, keys.directory.key_path, pki.ca_bundle)
        tls = server_context(*files, "none")
        await _serve(nursery, directory.public_handler, places.port(10), tls)
        tls = server_context(*files, "required")
        await _serve(nursery, directory.api_handler, places.port(11), tls)
        await _serve(nursery, directory.pki_handler, places.port(12), None)
        self._tell(f"Trust Framework: {places.https(10)}/participants")

    def _describe(self, pki: Pki, keys: Keyring, bank: BankAddress, hub: HubChild) -> Manifest:
        return describe_world(
            self._options,
            self._places,
            keys,
            ca=pki.ca_bundle,
            bank=bank,
            customers=[] if self._bank is None else self._bank.customers,
            hub_pids=[hub.pid],
        )

    async def _register(self, manifest: Manifest) -> None:
        """Register both TPPs: each says who it is with its certificate alone."""
        for section in manifest.tpps:
            identity = Identity.read(
                section, self._places.folder, manifest.ca_bundle, self._clock, self._dice
            )
            try:
                async with Wire.of(identity) as wire:
                    with trio.fail_after(REGISTER_S):
                        refused = await Tpp(identity, wire).register(manifest.hub.registration)
            except (httpx.HTTPError, trio.TooSlowError) as error:
                raise StartError(f"the Hub did not answer a registration: {error!r}") from None
            if refused is not None:
                raise StartError(f"the Hub did not register {section.name}: {refused.line}")
            self._tell(f"TPP: {section.name} is registered and active")

    async def _start_control(self, nursery: trio.Nursery, world: World) -> None:
        path = self._places.folder / CONTROL_PATH
        actions = world_actions(self._clock, world.stop)
        if self._directory is not None and self._bank is not None:
            actions |= knob_actions(self._directory, self._bank.faults)
        await nursery.start(serve_control, path, actions)

    async def _start_bank(self, nursery: trio.Nursery, pki: Pki, keys: Keyring) -> None:
        places = self._places
        client = keys.bank.transport_client
        self._bank = await trio.to_thread.run_sync(
            lambda: Bank.open(
                places.folder / "bank",
                provider_id=PROVIDER_ID,
                hub_heimdall_base=places.https(1),
                hub_consent_manager_base=places.https(1),
                ca_bundle=pki.ca_bundle,
                transport_cert=client.cert_path,
                transport_key=client.key_path,
                hub_client_subject=OPERATOR.organisation_id,
                hub_keys_url=f"{places.https(10)}/{OPERATOR.organisation_id}/"
                f"{OPERATOR.client_id}/application.jwks",
                clock=self._clock,
                dice=self._dice,
                authorization_path=AUTHORIZATION_PATH,
                encryption_key=keys.bank.encryption.key_path,
            )
        )
        files = (keys.bank.transport_server.cert_path, keys.bank.transport_server.key_path)
        connect, pages = self._bank.ozone_connect_handler, self._bank.pages_handler
        tls = server_context(*files, pki.ca_bundle, "optional")
        faults = self._bank.faults
        await _serve(nursery, connect, places.port(20), tls, faults)
        tls = server_context(*files, pki.ca_bundle, "none")
        await _serve(nursery, pages, places.port(21), tls)
        self._tell(f"Bank: {places.https(20)} (Ozone Connect), {places.https(21)} (its pages)")


async def _watch(hub: HubChild, places: Places) -> None:
    """End the world when the Hub ends by itself."""
    status = await hub.ended()
    raise StartError(f"the Hub ended by itself with status {status}; see {places.hub_log}")


async def _serve(
    nursery: trio.Nursery,
    handler: SiteHandler,
    port: int,
    tls: ssl.SSLContext | None,
    faults: Faults | None = None,
) -> None:
    async def site(*, task_status: trio.TaskStatus[int]) -> None:
        await serve_site(
            handler, host=LOOPBACK, port=port, tls=tls, faults=faults, task_status=task_status
        )

    await nursery.start(site)
