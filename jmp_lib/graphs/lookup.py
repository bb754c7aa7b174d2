"""Finds edges of the main graph by one number that stands for source, target and offset.

A hash table of one array: the cost of a query does not grow with the number of edges. Edges whose place is
taken by another one (a few percent) are kept sorted apart.
"""

from __future__ import annotations

import numpy as np

from .neighbors import LARGEST_CODE

_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: spreads neighbouring numbers (Knuth 6.4)


class EdgeCodes:
    """Numbers of edges: ``(target·N + source)·images + image``, with image numbers that add like offsets.

    ``offsets``: all arrays (E, 3) whose edges get numbers. Sums and differences of two of their offsets have
    numbers of their own too.
    """

    def __init__(self, natoms: int, offsets: list[np.ndarray]):
        reach = np.max([np.abs(o).max(axis=0, initial=0) for o in offsets], axis=0)
        spans = [4 * int(r) + 1 for r in reach]
        self.natoms, self.images = natoms, spans[0] * spans[1] * spans[2]
        self.strides = (spans[1] * spans[2], spans[2])
        if natoms**2 * self.images >= LARGEST_CODE:
            raise ValueError(
                f"{natoms} atoms lie in too many cells: wrap the positions into the cell before building graphs"
            )

    def image(self, offset: np.ndarray) -> np.ndarray:
        """(E,) number of each offset; image(a ± b) = image(a) ± image(b)."""
        if self.images == 1:
            return np.zeros(len(offset), dtype=np.int64)
        offset = offset.astype(np.int64, copy=False)
        return offset[:, 0] * self.strides[0] + offset[:, 1] * self.strides[1] + offset[:, 2]

    def edge(self, source: np.ndarray, target: np.ndarray, image: np.ndarray) -> np.ndarray:
        """(E,) number of each edge."""
        return (target * self.natoms + source) * self.images + image


class EdgeLookup:
    """``find(codes)``: which edge has this code."""

    def __init__(self, codes: np.ndarray):
        self.codes = codes
        bits = max(int(codes.size * 8).bit_length(), 4)
        self._shift = np.uint64(64 - bits)
        place = self._place(codes)
        self._table = np.zeros(2**bits, dtype=np.int32)
        self._table[place] = np.arange(codes.size, dtype=np.int32)
        displaced = np.flatnonzero(self._table[place] != np.arange(codes.size))
        self._displaced = displaced[np.argsort(codes[displaced])]
        self._displaced_codes = codes[self._displaced]

    def _place(self, codes: np.ndarray) -> np.ndarray:
        return ((codes.view(np.uint64) * _FACTOR) >> self._shift).view(np.int64)

    def find(self, codes: np.ndarray) -> np.ndarray:
        """(X,) edge number of each code, -1 where there is none."""
        if self.codes.size == 0:
            return np.full(codes.size, -1)
        edge = self._table.take(self._place(codes))
        absent = np.flatnonzero(self.codes.take(edge) != codes)
        edge[absent] = -1
        if self._displaced.size and absent.size:
            codes = codes[absent]
            at = np.minimum(np.searchsorted(self._displaced_codes, codes), self._displaced.size - 1)
            hit = self._displaced_codes[at] == codes
            edge[absent[hit]] = self._displaced[at[hit]]
        return edge
