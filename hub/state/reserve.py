"""Space set aside beside the database, given back when the disk is full at the end, so that the log can be moved into it.

While the disk is full every write is refused; what was acknowledged lies in SQLite's log. At the end the log is moved into
the database, which may need room. The reserve gives it. The next start sets it aside again; where there is no room for it,
the Hub starts without.

Source: architecture, failure table (the disk is full).
"""

import os
from pathlib import Path
from typing import Final, final

RESERVE: Final = "reserve"


@final
class Reserve:
    """Hold a file of so many octets in a folder."""

    def __init__(self, folder: Path, octets: int) -> None:
        """Name it; ``octets`` 0 holds nothing.

        Args:
            folder: The tenant's folder.
            octets: How much is set aside.
        """
        self._path = folder / RESERVE
        self._octets = octets

    def hold(self) -> bool:
        """Set the space aside; return whether there was room for it."""
        if not self._octets:
            return True
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(file, 0, self._octets)
                os.ftruncate(file, self._octets)
            finally:
                os.close(file)
        except OSError:
            self.release()
            return False
        return True

    def release(self) -> None:
        """Give the space back."""
        if self._octets:
            self._path.unlink(missing_ok=True)
