"""Memory: parts of a batch that fit, what running out of it looks like, and keeping it between steps.

Losses of parts add up (``losses.Counts``), and so do gradients: how a batch is cut does not change the update.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Callable, Sequence

import torch

from jmp_lib.graphs.padding import Bucket, in_edges

WORDS = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h (glibc)


def parts_that_fit(shapes: Sequence[Bucket], most: int | None,
                   size: Callable[[Bucket], int] = in_edges) -> tuple[list[list[int]], list[int]]:
    """Places 0, 1, ... in consecutive parts of a size up to ``most``, and their sizes; a larger structure is a part alone.

    shapes: of the structures, one by one; in a part they add up, but for widths, of which the largest counts.
    """
    parts: list[list[int]] = []
    wholes: list[Bucket] = []
    for place, own in enumerate(shapes):
        if parts:
            joined = {key: max(n, own[key]) if key.endswith("width") else n + own[key] for key, n in wholes[-1].items()}
            if most is None or size(joined) <= most:
                parts[-1].append(place)
                wholes[-1] = joined
                continue
        parts.append([place])
        wholes.append(own)
    return parts, [size(whole) for whole in wholes]


def is_out_of_memory(error: Exception) -> bool:
    """Whether ``error`` says that memory, of a GPU or of the machine, is used up."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS)


def give_back() -> None:
    """Memory that nothing refers to any more is free again, also on the GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def keep_freed_memory() -> bool:
    """Large arrays come from the heap, and the heap is not given back before the end; False where that cannot be set.

    A training step on a CPU allocates and frees thousands of arrays of many megabytes.  By default large ones go back to
    the system at once, and every page that is asked for again is cleared again.  ``docs/compute.md`` names another
    allocator that takes less memory besides.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no glibc: macOS, Windows, musl
        return False
    return mallopt(M_MMAP_MAX, 0) == 1 and mallopt(M_TRIM_THRESHOLD, -1) == 1
