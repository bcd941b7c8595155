"""The garbage collector after start-up: what was loaded stays, so it is not looked at again; young objects get more time.

A request makes some hundred short-lived objects, nearly all freed by reference counts. Python's defaults look for cycles
every 700 of them, and now and then through the whole contract; that was a tenth of the cost of a read.
"""

import gc
from typing import Final

THRESHOLDS: Final = (50_000, 20, 100)


def settle() -> None:
    """Collect once, set aside what is left, and let the collector run less often. Call once everything is loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
