"""The allocator of the C library keeps the memory that a step frees for the next one.

A training step on a CPU allocates and frees thousands of arrays of many megabytes. By default large ones go back to the
system at once, and every page that is asked for again is cleared again. ``docs/compute.md`` names another allocator that takes
less memory besides.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h (glibc)


def keep_freed_memory() -> bool:
    """Large arrays come from the heap, and the heap is not given back before the end; False where that cannot be set."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no glibc: macOS, Windows, musl
        return False
    return mallopt(M_MMAP_MAX, 0) == 1 and mallopt(M_TRIM_THRESHOLD, -1) == 1
