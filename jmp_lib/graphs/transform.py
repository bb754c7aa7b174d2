"""Graphs put on structures when first asked for, and kept in memory within a limit."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from . import GraphConfig
from .build import a2a_edges, cut_graphs, drop_edges


class AddGraphs(BaseTransform):
    """Puts the four graphs on a structure, as ``graphs`` (int32, for ``collate``). For one thread at a time.

    A ``Data`` of any source will do that has pos (N, 3) Å and z or atomic_numbers (N,); ``cell`` (3, 3) or (1, 3, 3),
    ``pbc`` and ``tags`` are used where it has them (else: no cell, periodic along the vectors of the cell, all tags 2).

    With ``edge_dropout`` the candidate edges are kept instead, every call draws anew which of them are left (``rng``
    may be replaced), and the field is ``candidates``: ``collate`` cuts the graphs of the whole batch at once.

    Args:
        max_mb: keep at most so many megabytes (10^6 bytes) of graphs, those last asked for; None: no limit; 0: nothing.

    Raises:
        ValueError: ``max_mb`` is negative, edges are to be dropped without ``rng``, or a structure has no graph.
    """

    def __init__(self, config: GraphConfig, edge_dropout: float = 0.0, rng: np.random.Generator | None = None, *,
                 max_mb: float | None = None):  # fmt: skip
        if max_mb is not None and max_mb < 0:
            raise ValueError(f"max_mb is {max_mb}: give a number of at least 0, or None for no limit")
        self.config, self.edge_dropout, self.rng = config, edge_dropout, rng
        self.max_bytes = np.inf if max_mb is None else max_mb * 1e6
        self.bytes = 0
        self._kept: OrderedDict[Hashable, dict | tuple] = OrderedDict()

    def forward(self, data: Data) -> Data:
        """``data``, a copy that the caller made, with its graphs and with what ``collate`` asks for."""
        for name, value in _complete(data).items():
            if name not in data:
                data[name] = value
        data["cell"] = data["cell"].reshape(3, 3)
        return data.update(self.fields(data, _content(data)))

    def fields(self, structure: Mapping | Data, key: Hashable) -> dict:
        """``graphs`` or ``candidates`` of a structure that is kept under ``key``."""
        kept = self._graphs(structure, key)
        if not self.edge_dropout:
            return {"graphs": kept}
        if self.rng is None:
            raise ValueError("edge dropout needs a random generator: give AddGraphs or GraphCache an rng")
        return {"candidates": (drop_edges(kept, self.edge_dropout, self.rng), self.config)}

    @property
    def kept(self) -> int:
        """How many structures are in memory."""
        return len(self._kept)

    def _graphs(self, structure: Mapping | Data, key: Hashable) -> dict | tuple:
        """Graphs, or candidate edges if edges are dropped later."""
        found = self._kept.pop(key, None)
        if found is None:
            edges = a2a_edges(structure, self.config)
            found = _compact(edges if self.edge_dropout else cut_graphs([structure], [edges], [self.config]))
            self.bytes += _size(found)
        self._kept[key] = found
        while self._kept and self.bytes > self.max_bytes:
            self.bytes -= _size(self._kept.popitem(last=False)[1])
        return found


class GraphCache(AddGraphs):
    """A sequence of structures with their graphs: ``cache[i]`` is a dict of the structure's fields and ``graphs``."""

    def __init__(self, structures: Sequence, config: GraphConfig, edge_dropout: float = 0.0,
                 rng: np.random.Generator | None = None, *, max_mb: float | None = None):  # fmt: skip
        super().__init__(config, edge_dropout, rng, max_mb=max_mb)
        self.structures = structures

    def __len__(self) -> int:
        return len(self.structures)

    def __getitem__(self, index: int) -> dict:
        structure = self.structures[index]
        return {**structure, **self.fields(structure, index)}


def _complete(data: Data) -> dict[str, torch.Tensor]:
    """Fields for a ``Data`` that lacks them."""
    natoms = len(data["pos"])
    found = {"atomic_numbers": data["z"]} if "z" in data else {}
    cell = data["cell"].reshape(3, 3) if "cell" in data else torch.zeros(3, 3, dtype=torch.float64)
    return {**found, "cell": cell, "pbc": (cell != 0).any(1), "tags": torch.full((natoms,), 2)}


def _content(data: Data) -> bytes:
    """What the graphs follow from, in 16 bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for name in ("pos", "cell", "pbc", "tags"):
        digest.update(np.ascontiguousarray(data[name]).tobytes())
    return digest.digest()


def _compact(arrays: dict | tuple) -> dict | tuple:
    """The same numbers in half the memory: int32 for int64 (``collate`` widens them in its own copy)."""
    if isinstance(arrays, dict):
        return dict(zip(arrays, _compact(tuple(arrays.values()))))
    return tuple(array.astype(np.int32) if array.dtype == np.int64 else array for array in arrays)


def _size(arrays: dict | tuple) -> int:
    """Bytes of the graphs, or candidate edges, of a structure."""
    return sum(array.nbytes for array in (arrays.values() if isinstance(arrays, dict) else arrays))
