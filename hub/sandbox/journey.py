"""The narrated journeys: a customer's consent, all the way to account data or to a payment.

The TPP's part is the sample TPP's, the customer's part is a browser that fills in the bank's forms. Nothing is
skipped and nothing is stubbed: each call goes over mTLS to the running sandbox. A step that is refused ends the
journey with one line that says who refused what.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import msgspec
import trio

from hub.node.errors import StartError
from hub.sandbox.approving import ApproversJourney
from hub.sandbox.clock import SharedClock
from hub.sandbox.control import CONTROL_PATH
from hub.sandbox.data_sharing import DataSharingJourney
from hub.sandbox.errands import FileJourney, OpenDataJourney, PayeeJourney
from hub.sandbox.manifest import CustomerSection, Manifest, read_manifest
from hub.sandbox.narration import Narrator, Tell
from hub.sandbox.paying import PaymentJourney
from hub.sandbox.plans import PlansJourney
from hub.sandbox.travel import Stopped
from hub.sandbox.withdrawing import RevocationJourney

CLOCK_PATH: Final = Path("run/clock")
"""Below the sandbox's folder."""
JOURNEY_S: Final = 120.0


async def run_journey(
    folder: Path,
    *,
    customer: str = "",
    decline: bool = False,
    show_http: bool = False,
    payment: bool = False,
    plans: bool = False,
    revoke: bool = False,
    approvers: bool = False,
    open_data: bool = False,
    payee: bool = False,
    file: bool = False,
    tell: Tell,
) -> int:
    """Run a journey against the sandbox of a folder and tell it.

    Args:
        folder: The sandbox's folder.
        customer: User name (or name) of the customer; the first one by default.
        decline: The customer declines; then a refusal is what must come.
        show_http: Show each exchange, secrets shortened.
        payment: Make one payment instead of reading account data.
        plans: Take a payment plan of each kind to its limit instead.
        revoke: Take consents back instead, one from either side.
        approvers: Take one payment past two signatories instead; ``decline`` is then the second one's.
        open_data: Read products and cash machines and leave a lead instead.
        payee: Confirm a payee, pay, and ask for the refund account instead.
        file: Pay a file of payments instead.
        tell: Takes one line of text.

    Returns:
        0 if everything went as it should, else 1.

    Raises:
        StartError: No sandbox runs there, or it has no such customer.

    Cancellation: nothing of it stays behind but the consent itself.
    """
    manifest = read_running(folder)
    person = choose_customer(manifest, customer)
    narrator = Narrator(tell, show_http=show_http)
    clock = SharedClock.open(folder / CLOCK_PATH)
    ended: list[str] = []
    try:
        chosen = (
            (payment, PaymentJourney),
            (plans, PlansJourney),
            (revoke, RevocationJourney),
            (approvers, ApproversJourney),
            (open_data, OpenDataJourney),
            (payee, PayeeJourney),
            (file, FileJourney),
        )
        kind = next((journey for wanted, journey in chosen if wanted), DataSharingJourney)
        journey = kind(manifest, folder, person, clock=clock, narrator=narrator)
        with trio.fail_after(JOURNEY_S):
            await journey.run(decline=decline)
    except* Stopped as group:
        ended += [str(error) for error in _leaves(group)]
    except* httpx.HTTPError as group:
        ended += [f"no answer ({type(error).__name__}: {error})" for error in _leaves(group)]
    except* trio.TooSlowError:
        ended.append(f"not done within {JOURNEY_S:.0f} seconds")
    except* OSError as group:
        ended += [str(error) for error in _leaves(group)]
    finally:
        clock.close()
    for line in ended:
        narrator.bad(f"The journey ended: {line}")
    return 1 if ended else 0


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def read_running(folder: Path) -> Manifest:
    """Read the manifest of a running sandbox.

    Raises:
        StartError: There is none, or it is of another version.
    """
    try:
        manifest = read_manifest(folder)
    except FileNotFoundError:
        raise StartError(f"{folder}: no sandbox there; start one with: hub sandbox") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise StartError(f"{folder}: sandbox.json cannot be read: {error}") from None
    if not (folder / CONTROL_PATH).exists():
        raise StartError(f"{folder}: the sandbox is not running; start it with: hub sandbox")
    return manifest


def choose_customer(manifest: Manifest, wanted: str) -> CustomerSection:
    """Return the customer of that user name or name; the first one where nothing is wanted.

    Raises:
        StartError: There is no such customer; the line names those that exist.
    """
    if not manifest.customers:
        raise StartError(
            "the bank is your own: only you know its pages and customers, so no journey can be told"
        )
    for person in manifest.customers:
        if not wanted or wanted.lower() in {person.username.lower(), person.name.lower()}:
            return person
    known = ", ".join(person.username for person in manifest.customers)
    raise StartError(f"no customer {wanted!r} at the bank; there are: {known}")
