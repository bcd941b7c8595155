"""One line of a consent's history: made by whoever changes it, shown by the Consent Manager.

Source: hub-apis 3.6.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from hub.model.consent import Consent
from hub.model.records import ConsentChange

_SECRET: Final = frozenset({"ConnectToken", "psuIdentifiers", "supplementaryInformation"})


def history_line(
    consent: Consent,
    *,
    line_id: str,
    time_ms: int,
    interaction_id: str,
    patch: Mapping[str, Any],
    organisation_id: str = "",
    client_id: str = "",
    software_statement_id: str = "",
) -> ConsentChange:
    """Make the line of a change.

    Args:
        consent: Before the change.
        line_id: A fresh UUID.
        time_ms: The moment, milliseconds.
        interaction_id: Of the call.
        patch: Dotted names to what they were set to; secrets, customers and free text are left out here.
        organisation_id: Whose call it was; empty for the Hub itself.
        client_id: With it.
        software_statement_id: With it.
    """
    shown = {name: value for name, value in patch.items() if name not in _SECRET}
    return ConsentChange(
        id=line_id,
        consent_id=consent.id,
        operation="patch",
        time_ms=time_ms,
        interaction_id=interaction_id,
        organisation_id=organisation_id,
        client_id=client_id,
        software_statement_id=software_statement_id,
        patch=orjson.dumps(shown).decode(),
        patch_filter=orjson.dumps({"id": consent.id}).decode(),
    )


def audit_entry(line: ConsentChange, provider_id: str) -> dict[str, Any]:
    """Return a line as the Consent Manager shows it."""
    caller = {
        "callerOrgId": line.organisation_id,
        "callerClientId": line.client_id,
        "callerSoftwareStatementId": line.software_statement_id,
    }
    entry: dict[str, Any] = {
        "providerId": provider_id,
        "operation": line.operation,
        "timestamp": line.time_ms,
        "fkMongoId": line.consent_id,
        "fkId": line.consent_id,
        "id": line.id,
        "ozoneInteractionId": line.interaction_id,
        "callerDetails": {name: value for name, value in caller.items() if value},
    }
    if line.patch:
        entry |= {"patchFilter": line.patch_filter, "patch": line.patch}
    return entry


def creation_line(consent: Consent) -> ConsentChange:
    """Return the first line of a consent's history, made from the consent itself."""
    return ConsentChange(
        id=consent.id,
        consent_id=consent.id,
        operation="create",
        time_ms=consent.created_ms,
        interaction_id=consent.request_headers.get("x-fapi-interaction-id", consent.id),
        organisation_id=consent.organisation_id,
        client_id=consent.client_id,
        software_statement_id=str(consent.tpp.get("softwareStatementId", "")),
    )
