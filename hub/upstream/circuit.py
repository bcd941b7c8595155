"""The circuit breaker as a value machine: times come in, permissions come out.

Theory. Only failures to get an answer count (unreachable, TLS, time-out, reset, nonsense); an answer of any status
shows that the bank lives. After ``failures`` in a row the circuit opens; after a pause one probe may pass at a time.
A probe that is answered closes it, one that fails doubles the pause up to a bound. A probe that is given up without
result returns its permission.

Invariant: while open, at most one exchange is under way.
"""

from enum import StrEnum


class Permit(StrEnum):
    """Say whether an exchange may be tried."""

    NO = "no"
    YES = "yes"
    PROBE = "probe"


class Circuit:
    """Decide whether an exchange may be tried; each permit is settled by exactly one of the three last methods."""

    __slots__ = (
        "_failures",
        "_longest",
        "_pause",
        "_probing",
        "_row",
        "_shortest",
        "_until",
        "open",
    )

    def __init__(self, failures: int, shortest: float, longest: float) -> None:
        """Start closed.

        Args:
            failures: This many in a row open it.
            shortest: First pause, seconds.
            longest: Longest pause, seconds.
        """
        self._failures = failures
        self._shortest = shortest
        self._longest = longest
        self._pause = shortest
        self._row = 0
        self._until = 0.0
        self._probing = False
        self.open = False

    def admit(self, now: float) -> Permit:
        """Tell whether an exchange may be tried at ``now`` (seconds of any steady clock)."""
        if not self.open:
            return Permit.YES
        if self._probing or now < self._until:
            return Permit.NO
        self._probing = True
        return Permit.PROBE

    def wait(self, now: float) -> int:
        """Return how many whole seconds a refused caller does best to wait, at least 1."""
        return max(1, round(self._until - now))

    def answered(self) -> bool:
        """Count an answer; return True if this closed the circuit."""
        closed = self.open
        self._row = 0
        self._pause = self._shortest
        self._probing = self.open = False
        return closed

    def failed(self, now: float, permit: Permit) -> bool:
        """Count a failure; return True if this opened the circuit.

        Failures of exchanges that were under way when it opened say nothing new and are not counted.
        """
        if permit is Permit.PROBE:
            self._probing = False
            self._pause = min(self._pause * 2, self._longest)
            self._until = now + self._pause
            return False
        self._row += 1
        if self.open or self._row < self._failures:
            return False
        self.open = True
        self._until = now + self._pause
        return True

    def given_up(self, permit: Permit) -> None:
        """Settle the permit of an exchange that ended without result."""
        if permit is Permit.PROBE:
            self._probing = False
