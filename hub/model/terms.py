"""Identifiers and units as NewTypes: one concept, one word."""

from enum import StrEnum
from typing import NewType

ClientId = NewType("ClientId", str)
OrganisationId = NewType("OrganisationId", str)
ConsentId = NewType("ConsentId", str)
InteractionId = NewType("InteractionId", str)
RequestUri = NewType("RequestUri", str)
X5tS256 = NewType("X5tS256", str)
"""base64url (unpadded) SHA-256 of a DER certificate, RFC 8705 section 3.1."""
Seconds = NewType("Seconds", int)
"""Whole seconds since 1970-01-01T00:00:00Z, or a span of seconds."""
Milliseconds = NewType("Milliseconds", int)
Octets = NewType("Octets", int)


class Face(StrEnum):
    """Name the listener that a request came in by (architecture, section 1)."""

    TPP = "tpp"
    LFI = "lfi"
    PORTAL = "portal"
    OPS = "ops"
    NODE = "node"
    """The Hub itself: start, stop, sweeps, refreshes."""
