"""The interpreter after start-up: what the collector need not look at again, and how long a thread may keep the others waiting.

A request makes some hundred short-lived objects, nearly all freed by reference counts. Python's defaults look for cycles
every 700 of them, and now and then through the whole contract; that was a tenth of the cost of a read.

Threads that compute (the log's tiles, a list to be parsed) hold the interpreter for a switch interval each time the loop wants it
back; Python's 5 ms are seen in the slowest answers.
"""

import gc
import sys
from typing import Final

THRESHOLDS: Final = (50_000, 20, 100)
SWITCH_S: Final = 0.0005


def settle() -> None:
    """Collect once, set aside what is left, collect less often, switch threads sooner. Call once everything is loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    sys.setswitchinterval(SWITCH_S)
