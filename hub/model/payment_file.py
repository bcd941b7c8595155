"""The file of a payment consent: what the consent says of it, and whether the bank has taken it.

Whether it was taken stands beside the consent, which may be decided on meanwhile. Where nothing stands, the consent is older
than this is written: then the bank alone knows.
"""

from typing import Any

from hub.model.consent import Consent
from hub.model.records import Setting


def file_of(consent: Consent | None) -> dict[str, Any] | None:
    """Return what a consent says of its file; None for a consent to anything else."""
    if consent is None:
        return None
    control = consent.request.get("consent", {}).get("ControlParameters") or {}
    found = (control.get("ConsentSchedule") or {}).get("FilePayment")
    return found if isinstance(found, dict) else None


def file_note(consent: Consent, *, taken: bool) -> Setting:
    """Return what notes that the bank has taken the file of a consent, or that it is awaited."""
    return Setting(name=f"payment.file:{consent.id}", value=b"taken" if taken else b"awaited")
