"""The life of one tenant in the world: its Hub in a process, its bank on two sites, its TPPs registered."""

import os
import ssl
from pathlib import Path
from typing import Final, final

import httpx
import trio

from hub.model.clock import Dice
from hub.node.errors import StartError
from hub.sandbox.bank.bank import Bank
from hub.sandbox.clock import SharedClock
from hub.sandbox.configuration import (
    AUTHORIZATION_PATH,
    BankAddress,
    bank_address,
    configuration,
    write_configuration,
)
from hub.sandbox.failpoints import VARIABLE
from hub.sandbox.hub_child import HubChild, start_hub
from hub.sandbox.introduction import describe_tenant
from hub.sandbox.manifest import CustomerSection, Manifest, SandboxOptions, TenantSection
from hub.sandbox.parties import Keyring
from hub.sandbox.places import LOOPBACK, Places
from hub.sandbox.server import Faults, SiteHandler, serve_site
from hub.sandbox.tenant import Tenant
from hub.sandbox.tls import server_context
from hub.sandbox.tpp import Identity, Tpp, Wire

REGISTER_S: Final = 15.0


@final
class Tenancy:
    """One tenant: start it, register TPPs at it, stop it."""

    def __init__(
        self,
        tenant: Tenant,
        options: SandboxOptions,
        places: Places,
        keys: Keyring,
        *,
        ca: Path,
        clock: SharedClock,
        dice: Dice,
    ) -> None:
        """Take what the world is made of."""
        self.tenant = tenant
        self._options = options
        self._places = places
        self._keys = keys
        self._own = tenant.keys(keys)
        self._ca = ca
        self._clock = clock
        self._dice = dice
        self._address: BankAddress = bank_address(options, places, tenant, ca)
        self._hub: HubChild | None = None
        self._bank: Bank | None = None

    @property
    def customers(self) -> list[CustomerSection]:
        """Return the model bank's customers; none where the bank is somebody else's."""
        return [] if self._bank is None else self._bank.customers

    @property
    def bank_faults(self) -> Faults:
        """Return the knobs of the model bank's Ozone Connect (of no effect where the bank is somebody else's)."""
        return Faults() if self._bank is None else self._bank.faults

    async def start(self, nursery: trio.Nursery) -> TenantSection:
        """Start Hub and bank, and return once the Hub is ready.

        Raises:
            StartError: The Hub ended, or is not ready in time.
        """
        settings = configuration(
            self._options, self._places, self.tenant, self._keys, ca=self._ca, bank=self._address
        )
        write_configuration(settings, self.tenant.hub_toml(self._places))
        self._hub = hub = await start_hub(self._places, self.tenant)
        # The Hub needs the directory to be ready, but not the bank: they open at the same time.
        if not self._options.bank_url:
            self._bank = await trio.to_thread.run_sync(self._open_bank)
            await self._serve_bank(nursery, self._bank)
        await hub.ready()
        nursery.start_soon(self._keep, hub)
        if self._bank is not None:
            nursery.start_soon(self._bank.settle_payments)
        return describe_tenant(self._places, self.tenant, self._own.bank, self._address, [hub.pid])

    async def _keep(self, hub: HubChild) -> None:
        """Watch the Hub; where failpoints may make it die, start it anew when it does.

        Raises:
            StartError: It ended by itself.
        """
        while True:
            try:
                return await hub.watch()
            except StartError:
                if VARIABLE not in os.environ:
                    raise
            self._hub = hub = await start_hub(self._places, self.tenant)

    async def register(self, manifest: Manifest, section: TenantSection) -> None:
        """Register both TPPs: each says who it is with its certificate alone.

        Raises:
            StartError: The Hub refused, or did not answer.
        """
        for tpp in manifest.tpps:
            identity = Identity.read(
                tpp, self._places.folder, manifest.ca_bundle, self._clock, self._dice
            )
            try:
                async with Wire.of(identity) as wire:
                    with trio.fail_after(REGISTER_S):
                        refused = await Tpp(identity, wire).register(section.hub.registration)
            except (httpx.HTTPError, trio.TooSlowError) as error:
                raise StartError(f"the Hub did not answer a registration: {error!r}") from None
            if refused is not None:
                raise StartError(f"the Hub did not register {tpp.name}: {refused.line}")

    async def stop(self) -> None:
        """End the Hub's process and the bank's connections.

        Cancellation: shielded, bounded.
        """
        if self._hub is not None:
            await self._hub.stop()
        if self._bank is not None:
            with trio.move_on_after(1, shield=True):
                await self._bank.aclose()

    def _open_bank(self) -> Bank:
        places, keys, operator = self._places, self._own.bank, self.tenant.operator
        keystore = f"{places.https(10)}/{operator.organisation_id}/{operator.client_id}"
        return Bank.open(
            self.tenant.bank_folder(places),
            provider_id=self.tenant.provider_id,
            hub_heimdall_base=places.https(self.tenant.lfi),
            hub_consent_manager_base=places.https(self.tenant.lfi),
            ca_bundle=self._ca,
            transport_cert=keys.transport_client.cert_path,
            transport_key=keys.transport_client.key_path,
            hub_client_subject=operator.organisation_id,
            hub_keys_url=f"{keystore}/application.jwks",
            clock=self._clock,
            dice=self._dice,
            authorization_path=AUTHORIZATION_PATH,
            encryption_key=keys.encryption.key_path,
        )

    async def _serve_bank(self, nursery: trio.Nursery, bank: Bank) -> None:
        server = self._own.bank.transport_server
        files = (server.cert_path, server.key_path, self._ca)
        connect = server_context(*files, "optional")
        port = self._places.port(self.tenant.connect)
        await serve(nursery, bank.ozone_connect_handler, port, connect, bank.faults)
        pages = server_context(*files, "none")
        await serve(nursery, bank.pages_handler, self._places.port(self.tenant.pages), pages)


async def serve(
    nursery: trio.Nursery,
    handler: SiteHandler,
    port: int,
    tls: ssl.SSLContext | None,
    faults: Faults | None = None,
) -> None:
    """Start one site of the world; return once it accepts connections."""

    async def site(*, task_status: trio.TaskStatus[int]) -> None:
        await serve_site(
            handler, host=LOOPBACK, port=port, tls=tls, faults=faults, task_status=task_status
        )

    await nursery.start(site)
