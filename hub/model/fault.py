"""What went wrong, whose doing it was, what may be said aloud.

A ``Fault`` is a value that a stage returns instead of its result. It is rendered once, at the face it leaves
by: as an OAuth error (RFC 6749 section 5.2), as the standard's ``Errors`` array towards a TPP on resource
endpoints, or as ``{errorCode, errorMessage}`` towards the bank. ``private`` stays in our log and audit trace and
never holds a secret or a payload value.
"""

from enum import StrEnum

import msgspec


class Source(StrEnum):
    """Say whose doing it was."""

    CALLER = "caller"
    HUB = "hub"
    BANK = "bank"


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one refusal or failure.

    Attributes:
        source: Whose doing it was.
        status: The HTTP status that the caller gets, 400 to 599.
        code: The standard's code: ``invalid_grant``, ``Consent.Invalid``; empty where the standard wants an
            empty body.
        public: One sentence for the caller: what was expected and what came; never a secret or payload value.
        private: One sentence for our log only.
        check: The name of the deciding check, as in the audit event (``client_assertion.audience``).
        retry_after: Seconds for ``Retry-After``; 0 for none.
        path: JSON pointer of the offending member, where one is to blame.
        nonce: The nonce that a DPoP proof must carry instead (RFC 9449 section 9); empty for none.
        redirect: True if an authorization request may carry it to the client's redirect URI.
    """

    source: Source
    status: int
    code: str
    public: str
    private: str = ""
    check: str = ""
    retry_after: int = 0
    path: str = ""
    nonce: str = ""
    redirect: bool = False


def caller_fault(
    status: int, code: str, public: str, *, check: str, path: str = "", private: str = ""
) -> Fault:
    """Make a Fault that is the caller's doing."""
    return Fault(
        source=Source.CALLER,
        status=status,
        code=code,
        public=public,
        check=check,
        path=path,
        private=private,
    )


def hub_fault(status: int, code: str, public: str, *, check: str, private: str = "") -> Fault:
    """Make a Fault that is our own doing."""
    return Fault(
        source=Source.HUB, status=status, code=code, public=public, check=check, private=private
    )


def bank_fault(status: int, code: str, public: str, *, check: str, private: str = "") -> Fault:
    """Make a Fault that is the bank's doing."""
    return Fault(
        source=Source.BANK, status=status, code=code, public=public, check=check, private=private
    )
