"""The interpreter after start-up: what the collector need not look at again, and how long a thread may keep the others waiting.

A request makes some hundred short-lived objects, nearly all freed by reference counts. Python's defaults look for cycles
every 700 of them, and now and then through the whole contract; that was a tenth of the cost of a read.

Threads that compute (the log's tiles, a list to be parsed) hold the interpreter for a switch interval each time the loop wants it
back; Python's 5 ms are seen in the slowest answers.

The C library takes what is long from the system and gives it back at once, but raises what it calls long with each such block
that is freed: after one answer of ten megabytes the next come from the heap, whose holes stay with the process (50 MB and more).
So what is long is said here, once.
"""

import ctypes
import gc
import sys
from typing import Final

THRESHOLDS: Final = (50_000, 20, 100)
SWITCH_S: Final = 0.0005
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of ``malloc.h``."""
_LONG: Final = 1 << 20
_FREE_MOST: Final = 8 << 20


def settle() -> None:
    """Collect once, set aside what is left, collect less often, switch threads sooner, give long blocks back. Call once everything is loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    sys.setswitchinterval(SWITCH_S)
    _give_back()


def _give_back() -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # not every C library has it
        mallopt(_M_MMAP_THRESHOLD, _LONG)
        mallopt(_M_TRIM_THRESHOLD, _FREE_MOST)
