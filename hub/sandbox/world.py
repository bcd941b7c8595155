"""The whole world of a sandbox: directory, bank and TPPs in this process, the Hub in its own.

Theory. The world is a nursery: every counterparty's site is a task of it, the Hub's process is watched by one, and
whatever fails takes everything down; nothing is left running and no lock is kept. Things start in the order they
need each other (PKI and keys, directory, bank, Hub, registrations) and end all at once, the Hub first. What is made
on the first run (keys, ids, ledger, the Hub's store, the clock's offset) is used again by later ones.
"""

from collections.abc import Callable
from typing import final

import trio

from hub.node.errors import StartError
from hub.node.wall import SystemDice
from hub.sandbox.clock import SharedClock
from hub.sandbox.control import CONTROL_PATH, serve_control, world_actions
from hub.sandbox.directory import Acts, Directory, directory_page
from hub.sandbox.enrolment import enrol, stranger
from hub.sandbox.folder import owned_folder
from hub.sandbox.introduction import describe_world
from hub.sandbox.knobs import knob_actions
from hub.sandbox.manifest import Manifest, SandboxOptions, TenantSection, write_manifest
from hub.sandbox.parties import Keyring, issue_keys
from hub.sandbox.pki import Pki
from hub.sandbox.places import Places, check_ports
from hub.sandbox.server import Faults
from hub.sandbox.tenancy import Tenancy, serve
from hub.sandbox.tenant import Tenant, check_base, tenants_of
from hub.sandbox.tls import server_context
from hub.sandbox.witness import SandboxWitness, key_file

Tell = Callable[[str], object]


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
    if options.bank_ca and not options.bank_url:
        raise StartError("--bank-ca is the CA of your own bank; give --bank too, or leave it out")
    with owned_folder(options.folder) as folder:
        places = Places(folder=folder, base=options.port_base)
        check_base(places, options)
        check_ports(places, second=len(tenants_of(options)) > 1)
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
        self._faults: dict[str, Faults] = {}

    async def run(self, task_status: trio.TaskStatus[World]) -> None:
        places = self._places
        pki = await trio.to_thread.run_sync(
            lambda: Pki.open(places.folder / "pki", self._clock, base=places.http(12))
        )
        owners = [(tenant.bank, tenant.operator) for tenant in tenants_of(self._options)]
        keys = await trio.to_thread.run_sync(issue_keys, pki, places, owners)
        tenancies = [self._tenancy(tenant, pki, keys) for tenant in tenants_of(self._options)]
        async with trio.open_nursery() as nursery:
            acts = await self._start_directory(nursery, pki, keys)
            try:
                sections = [await tenancy.start(nursery) for tenancy in tenancies]
                manifest = describe_world(
                    self._options,
                    places,
                    keys,
                    ca=pki.ca_bundle,
                    tenants=sections,
                    customers=tenancies[0].customers,
                )
                await self._register(tenancies, sections, manifest)
                write_manifest(manifest, places.folder)
                world = World(manifest, places, self._clock)
                actions = world_actions(self._clock, world.stop)
                banks = {"bank": tenancies[0].bank_faults}
                actions |= knob_actions(acts, {**self._faults, **banks})
                await nursery.start(serve_control, places.folder / CONTROL_PATH, actions)
                task_status.started(world)
                await world.over()
            finally:
                for tenancy in tenancies:
                    await tenancy.stop()
            nursery.cancel_scope.cancel()

    def _tenancy(self, tenant: Tenant, pki: Pki, keys: Keyring) -> Tenancy:
        return Tenancy(
            tenant,
            self._options,
            self._places,
            keys,
            ca=pki.ca_bundle,
            clock=self._clock,
            dice=self._dice,
        )

    async def _start_directory(self, nursery: trio.Nursery, pki: Pki, keys: Keyring) -> Acts:
        places = self._places
        directory = Directory.open(
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
        open_to_all, mutual = server_context(*files, "none"), server_context(*files, "required")
        for name, handler, offset, tls in (
            ("directory", directory.public_handler, 10, open_to_all),
            ("directory-api", directory.api_handler, 11, mutual),
            ("pki", directory.pki_handler, 12, None),
        ):
            self._faults[name] = Faults()
            await serve(nursery, handler, places.port(offset), tls, self._faults[name])
        acts = Acts(directory, self._faults)
        logs = {places.https(t.tpp): t.log_key(places) for t in tenants_of(self._options)}
        for path in logs.values():
            key_file(path)
        witness = SandboxWitness(places, logs, self._clock)
        self._faults["witness"] = Faults()
        await serve(nursery, witness.handler, places.port(13), open_to_all, self._faults["witness"])
        page = directory_page(acts, places.https(14), self._dice)
        await serve(nursery, page, places.port(14), open_to_all)
        self._tell(
            f"Trust Framework: {places.https(10)}/participants, its page: {places.https(14)}/"
        )
        return acts

    async def _register(
        self, tenancies: list[Tenancy], sections: list[TenantSection], manifest: Manifest
    ) -> None:
        for tenancy, section in zip(tenancies, sections, strict=True):
            await tenancy.register(manifest, section)
            self._tell(
                f"Hub of {section.bank.provider_id} ({section.profile}): {section.hub.issuer} for TPPs, "
                f"{section.hub.consent_manager_base} for the bank"
            )
            self._tell(
                f"Bank {section.bank.provider_id}: {section.bank.ozone_connect_base} (Ozone Connect), "
                f"{section.bank.authorization_endpoint} (its pages)"
            )
        names = " and ".join(tpp.name for tpp in manifest.tpps)
        self._tell(f"TPPs: {names}, registered and active")
        if self._options.tpp_cert is not None:
            _, client, title, _ = stranger(self._options)
            self._tell(
                f"Your TPP: {title}, client id {client}, in the framework; it registers itself with its certificate: "
                f"POST {manifest.hub.registration}"
            )
