"""The model bank, put together: open it, and serve its two sites.

``Bank.open`` needs the Hub's addresses and names, never its code. ``ozone_connect_handler`` and ``pages_handler`` are given
to ``sandbox.server.serve_site`` (Ozone Connect with ``client_cert="optional"``: ``/hello`` is for anybody, everything else
refuses who is not the Hub; the pages with ``"none"``); ``faults`` are the knobs of the first.
"""

import logging
import ssl
from pathlib import Path
from typing import Final, Self, final
from urllib.parse import urlsplit

import httpx
import trio

from hub.model.clock import Clock, Dice
from hub.sandbox.bank.accounts import ACCOUNT_ROUTES
from hub.sandbox.bank.bearer import FetchKeys, Gate, keys_from
from hub.sandbox.bank.book import Book, Payment
from hub.sandbox.bank.connect import OzoneConnect
from hub.sandbox.bank.consent_calls import ConsentDesk
from hub.sandbox.bank.hub import Hub, HubTrouble
from hub.sandbox.bank.open_data import OpenDesk
from hub.sandbox.bank.own_bearer import OwnBearer
from hub.sandbox.bank.pages import Pages
from hub.sandbox.bank.payments import PaymentDesk
from hub.sandbox.bank.people import CUSTOMERS
from hub.sandbox.bank.pii import PiiReader
from hub.sandbox.manifest import CustomerSection
from hub.sandbox.site import Faults, SiteHandler
from hub.sandbox.tls import client_context

LOG: Final = logging.getLogger("hub.sandbox.bank")
SETTLE_S: Final = 1.0


@final
class Bank:
    """One bank: its book, its two sites, its connections to the Hub."""

    __slots__ = (
        "_clients",
        "book",
        "consents",
        "desk",
        "faults",
        "hub",
        "ozone_connect_handler",
        "pages_handler",
    )

    def __init__(
        self,
        *,
        book: Book,
        desk: PaymentDesk,
        consents: ConsentDesk,
        hub: Hub,
        faults: Faults,
        ozone_connect_handler: SiteHandler,
        pages_handler: SiteHandler,
        clients: tuple[httpx.AsyncClient, ...] = (),
    ) -> None:
        """Join the parts; ``open`` makes them."""
        self.book = book
        self.desk = desk
        self.consents = consents
        self.hub = hub
        self.ozone_connect_handler = ozone_connect_handler
        self.pages_handler = pages_handler
        self.faults = faults
        self._clients = clients

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        provider_id: str,
        hub_heimdall_base: str,
        hub_consent_manager_base: str,
        ca_bundle: Path,
        transport_cert: Path,
        transport_key: Path,
        hub_client_subject: str,
        hub_keys_url: str,
        clock: Clock,
        dice: Dice,
        host: str = "localhost",
        authorization_path: str = "/open-finance",
        encryption_key: Path | None = None,
        signing_key: Path | None = None,
        signing_kid: str = "",
    ) -> Self:
        """Open the bank in a folder of its own; the first time, found it.

        Args:
            folder: Made if missing, mode 0700.
            provider_id: The bank's code, ``aud`` of the Hub's bearers.
            hub_heimdall_base: Where Headless Heimdall is; https, no trailing slash.
            hub_consent_manager_base: Where the Consent Manager is.
            ca_bundle: Trust anchors for the Hub's and the key store's certificates, PEM.
            transport_cert: The bank's client certificate towards the Hub (C3), PEM.
            transport_key: Its private key, PEM.
            hub_client_subject: Organisation id (OU) in the Hub's certificate towards the bank (C4).
            hub_keys_url: JWKS of the Hub's bearer keys (Sig3), in the Trust Framework's key store.
            clock: The world's clock.
            dice: Unpredictable octets.
            host: What ``/hello`` calls itself.
            authorization_path: Path of the authorization endpoint.
            encryption_key: What TPPs seal payments' personal data for (Enc1), private, PEM; without it sealed
                payments are refused.
            signing_key: What the bank signs its bearers towards the Hub with (Sig4), private, PEM; None sends none.
            signing_kid: Its key id.

        Raises:
            OSError: The folder or a file cannot be used.
            ssl.SSLError: A certificate or key cannot be used.
        """
        to_hub = _http(client_context(ca_bundle, transport_cert, transport_key))
        to_keys = _http(client_context(ca_bundle))
        bearer = None
        if signing_key is not None:
            bearer = OwnBearer(
                key=signing_key,
                kid=signing_kid,
                certificate=transport_cert,
                audience=provider_id,
                clock=clock,
                dice=dice,
            )
        return cls.assemble(
            book=Book.open(folder, clock),
            provider_id=provider_id,
            hub=Hub(to_hub, hub_heimdall_base, hub_consent_manager_base, bearer),
            hub_organisation_id=hub_client_subject,
            fetch_keys=keys_from(to_keys, hub_keys_url),
            clock=clock,
            dice=dice,
            host=host,
            authorization_path=authorization_path,
            pii=PiiReader(encryption_key),
            clients=(to_hub, to_keys),
        )

    @classmethod
    def assemble(
        cls,
        *,
        book: Book,
        provider_id: str,
        hub: Hub,
        hub_organisation_id: str,
        fetch_keys: FetchKeys,
        clock: Clock,
        dice: Dice,
        host: str = "localhost",
        authorization_path: str = "/open-finance",
        pii: PiiReader | None = None,
        clients: tuple[httpx.AsyncClient, ...] = (),
    ) -> Self:
        """Put a bank together from a book and connections that exist."""
        gate = Gate(
            hub_organisation_id=hub_organisation_id,
            audience=provider_id,
            fetch=fetch_keys,
            clock=clock,
        )
        reader = pii or PiiReader(None)
        desk = PaymentDesk(book, dice, reader)
        consents = ConsentDesk(book, reader)
        open_desk = OpenDesk(book, dice, provider_id)
        connect = OzoneConnect(
            book=book,
            gate=gate,
            provider_id=provider_id,
            host=host,
            routes=(
                *ACCOUNT_ROUTES,
                *desk.routes(),
                *consents.routes(),
                *open_desk.routes(),
            ),
        )
        faults = Faults()
        pages = Pages(
            base=urlsplit(authorization_path).path,
            book=book,
            hub=hub,
            clock=clock,
            dice=dice,
            pii=reader,
            faults=faults,
        )
        return cls(
            book=book,
            desk=desk,
            consents=consents,
            hub=hub,
            faults=faults,
            ozone_connect_handler=connect,
            pages_handler=pages,
            clients=clients,
        )

    @property
    def customers(self) -> list[CustomerSection]:
        """Return the customers as the manifest has them, with their published passwords."""
        return [
            CustomerSection(
                name=customer.name,
                username=customer.username,
                password=customer.password,
                accounts=list(customer.accounts),
            )
            for customer in CUSTOMERS
        ]

    async def settle_payments(self) -> None:
        """Finish pending payments as they come due, and tell the Hub of each; run it beside the sites.

        A Hub that cannot be told is told again a second later.

        Cancellation: ends it; what is pending is finished after the next start.
        """
        untold: dict[str, Payment] = {}
        while True:
            for payment in self.desk.due():
                untold[payment.id] = self.desk.settle(payment)
            for payment in list(untold.values()):
                if await self._told(payment):
                    del untold[payment.id]
            await trio.sleep(SETTLE_S)

    async def _told(self, payment: Payment) -> bool:
        change: dict[str, object] = {
            "paymentResponse.status": payment.status,
            "paymentResponse.paymentTransactionId": str(payment.answer["paymentTransactionId"]),
        }
        if payment.status == "Rejected":
            code, message = payment.reason
            change["paymentResponse.rejectReasonCode"] = [{"code": code, "message": message}]
        try:
            await self.hub.patch_payment(payment.id, change)
        except HubTrouble as trouble:
            LOG.warning("a payment's status could not be told: %s", trouble)
            return False
        return True

    async def aclose(self) -> None:
        """Close the connections to the Hub and the key store."""
        for client in self._clients:
            await client.aclose()


def _http(context: ssl.SSLContext) -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=context, follow_redirects=False, trust_env=False)
