"""Structures with their graphs, kept in memory within a limit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from .build import GraphConfig, a2a_edges, derive_graphs, drop_edges


class GraphCache:
    """Structures with their graphs, each built when first asked for and then kept. For one thread at a time.

    ``cache[i]`` is the structure dict with the key ``graphs`` (int32, for ``collate``). With ``edge_dropout`` the
    candidate edges are kept instead, every access draws anew which of them are left (``rng`` may be replaced),
    and the key is ``candidates``: ``collate`` cuts the graphs of the whole batch at once.

    Args:
        max_structures: keep at most so many. max_mb: keep at most so many megabytes (10^6 bytes) of graphs.
            What was not asked for longest is dropped first; None: no limit; 0: keep nothing.

    Raises:
        ValueError: a limit is negative, or edges are to be dropped without ``rng``.
    """

    def __init__(self, structures: Sequence[dict], config: GraphConfig, edge_dropout: float = 0.0,
                 rng: np.random.Generator | None = None, *, max_structures: int | None = None,
                 max_mb: float | None = None):  # fmt: skip
        for name, value in (("max_structures", max_structures), ("max_mb", max_mb)):
            if value is not None and value < 0:
                raise ValueError(f"{name} is {value}: give a number of at least 0, or None for no limit")
        self.structures, self.config = structures, config
        self.edge_dropout, self.rng = edge_dropout, rng
        self.max_structures = np.inf if max_structures is None else max_structures
        self.max_bytes = np.inf if max_mb is None else max_mb * 1e6
        self.bytes = 0
        self._kept: OrderedDict[int, dict | tuple] = OrderedDict()

    def __len__(self) -> int:
        return len(self.structures)

    def __getitem__(self, index: int) -> dict:
        structure = self.structures[index]
        kept = self._graphs(index, structure)
        if not self.edge_dropout:
            return {**structure, "graphs": kept}
        if self.rng is None:
            raise ValueError("edge dropout needs a random generator: give GraphCache an rng")
        return {**structure, "candidates": (drop_edges(kept, self.edge_dropout, self.rng), self.config)}

    @property
    def kept(self) -> int:
        """How many structures are in memory."""
        return len(self._kept)

    def _graphs(self, index: int, structure: dict):
        """Graphs, or candidate edges if edges are dropped later."""
        found = self._kept.pop(index, None)
        if found is None:
            edges = a2a_edges(structure, self.config)
            found = _compact(edges if self.edge_dropout else derive_graphs(structure, edges, self.config))
            self.bytes += _size(found)
        self._kept[index] = found
        while self._kept and (len(self._kept) > self.max_structures or self.bytes > self.max_bytes):
            self.bytes -= _size(self._kept.popitem(last=False)[1])
        return found


def _compact(arrays: dict | tuple) -> dict | tuple:
    """The same numbers in half the memory: int32 for int64 (``collate`` widens them in its own copy)."""
    if isinstance(arrays, dict):
        return dict(zip(arrays, _compact(tuple(arrays.values()))))
    return tuple(array.astype(np.int32) if array.dtype == np.int64 else array for array in arrays)


def _size(arrays: dict | tuple) -> int:
    """Bytes of the graphs, or candidate edges, of a structure."""
    return sum(array.nbytes for array in (arrays.values() if isinstance(arrays, dict) else arrays))
