"""The Consent Manager's table of operations: method and path to handler.

Source: hub-apis 3.1; issue 6 point 3.
"""

from hub.config import Settings
from hub.lfi.consents import Consents, unknown
from hub.lfi.payment_log import PaymentLog
from hub.lfi.shell import Call, Done, Operation, Shell
from hub.model.clock import Clock, Dice
from hub.model.fault import Fault
from hub.model.http import Handler
from hub.observe import Observer
from hub.state.keeper import Keeper


class Lfi:
    """Serve the Consent Manager to the bank."""

    def __init__(
        self, *, settings: Settings, keeper: Keeper, clock: Clock, dice: Dice, observer: Observer
    ) -> None:
        """Take what the operations need."""
        self._shell = Shell(keeper=keeper, clock=clock, dice=dice)
        self._consents = Consents(self._shell, settings, observer)
        self._payments = PaymentLog(
            self._shell,
            settings.tenant.time_zone,
            anchored=settings.switches.month_periods == "anchored",
        )

    def lfi_routes(self) -> dict[tuple[str, str], Handler]:
        """Return the handlers by method and path template, without any version prefix and without the guard."""
        consents, payments = self._consents, self._payments
        table: dict[tuple[str, str], tuple[str, Operation]] = {
            ("GET", "/consents"): ("consents.list", consents.list_all),
            ("GET", "/consents/{consentId}"): ("consents.read", consents.read),
            ("PATCH", "/consents/{consentId}"): ("consents.patch", consents.patch),
            ("GET", "/consents/{consentId}/audit"): ("consents.audit", consents.history),
            ("POST", "/consents/{consentId}/action/revoke"): (
                "consents.revoke",
                consents.revoke,
            ),
            ("GET", "/consent-groups/{consentGroupId}/consents"): (
                "consents.list-group",
                consents.list_group,
            ),
            ("POST", "/consent-groups/{consentGroupId}/consents/action/revoke"): (
                "consents.revoke-group",
                consents.revoke_group,
            ),
            ("GET", "/psu/{userId}/consents"): ("consents.list-psu", consents.list_psu),
            ("GET", "/accounts/{accountId}/consents"): (
                "consents.list-account",
                consents.list_account,
            ),
            ("GET", "/payment-log"): ("payment-log.list", payments.list),
            ("PATCH", "/payment-log/{id}"): ("payment-log.patch", payments.patch),
            ("PATCH", "/account-opening-log/{logId}"): ("account-opening-log.patch", no_log),
            ("PATCH", "/fx-quote-log/{logId}"): ("fx-quote-log.patch", no_log),
            ("PATCH", "/insurance-quote-log/{logId}"): ("insurance-quote-log.patch", no_log),
            ("GET", "/hello-mtls"): ("hello-mtls", hello_mtls),
        }
        return {
            (method, template): self._shell.handler(route, template, operation)
            for (method, template), (route, operation) in table.items()
        }


async def no_log(_call: Call) -> Done | Fault:
    """Refuse every id of a log whose API family is not served here: there is no such entry."""
    return unknown("logId")


async def hello_mtls(call: Call) -> Done | Fault:
    """Tell the caller what its certificate looks like from here."""
    peer = call.request.peer
    subject = ",".join(
        f"{name}={value}"
        for name, value in (
            ("CN", peer.client_id),
            ("OU", peer.organisation_id),
            ("O", peer.organisation_name),
        )
        if value
    )
    body = {
        "connectionEstablished": True,
        "mtlsStatus": "established" if peer.present else "not-established",
        "hostName": call.request.authority,
        "clientCertificate": {"subject": subject, "issuer": peer.issuer},
    }
    return Done(status=200, body=body)
