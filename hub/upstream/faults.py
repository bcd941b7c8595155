"""Every way in which an exchange with the bank can fail, each a Fault that says whether anything was sent."""

from hub.model.fault import Fault, bank_fault


def bank_failure(check: str, private: str, *, sent: bool) -> Fault:
    """Make the Fault of a failed exchange.

    Args:
        check: One of the names listed at ``Bank.exchange``.
        private: What happened, for our log; never a payload.
        sent: Whether the bank may have processed anything.
    """
    return bank_fault(
        500,
        "GenericRecoverableError",
        "The bank did not answer as expected; the request may be repeated later.",
        check=check,
        private=f"{private} (sent={'yes' if sent else 'no'})",
    )


def was_sent(fault: Fault) -> bool:
    """Tell whether the bank may have processed the request that ended in this Fault."""
    return not fault.private.endswith("(sent=no)")
