"""Graphs put on structures when first asked for; of a sequence kept in memory within a limit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

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
    ``ValueError``: edges are to be dropped without ``rng``, or a structure has no graph.
    """

    def __init__(self, config: GraphConfig, edge_dropout: float = 0.0, rng: np.random.Generator | None = None):
        self.config, self.edge_dropout, self.rng = config, edge_dropout, rng

    def forward(self, data: Data) -> Data:
        """``data``, a copy that the caller made, with its graphs and with what ``collate`` asks for."""
        for name, value in _complete(data).items():
            if name not in data:
                data[name] = value
        data["cell"] = data["cell"].reshape(3, 3)
        return data.update(self.fields(self.build(data)))

    def build(self, structure: Mapping | Data) -> dict | tuple:
        """Graphs of a structure, or its candidate edges if edges are dropped later."""
        edges = a2a_edges(structure, self.config)
        return _compact(edges if self.edge_dropout else cut_graphs([structure], [edges], [self.config]))

    def fields(self, built: dict | tuple) -> dict:
        """``graphs`` or ``candidates`` of a structure, of what ``build`` made of it."""
        if not self.edge_dropout:
            return {"graphs": built}
        if self.rng is None:
            raise ValueError("edge dropout needs a random generator: give AddGraphs or GraphCache an rng")
        return {"candidates": (drop_edges(built, self.edge_dropout, self.rng), self.config)}


class GraphCache(AddGraphs):
    """A sequence of structures with their graphs: ``cache[i]`` is a dict of the structure's fields and ``graphs``.

    max_mb: keep at most so many megabytes (10^6 bytes) of graphs, those last asked for; None: no limit; 0: nothing.
    """

    def __init__(self, structures: Sequence, config: GraphConfig, edge_dropout: float = 0.0,
                 rng: np.random.Generator | None = None, *, max_mb: float | None = None):
        super().__init__(config, edge_dropout, rng)
        if max_mb is not None and max_mb < 0:
            raise ValueError(f"max_mb is {max_mb}: give a number of at least 0, or None for no limit")
        self.structures, self.bytes = structures, 0
        self.max_bytes = np.inf if max_mb is None else max_mb * 1e6
        self.kept: OrderedDict[int, dict | tuple] = OrderedDict()

    def __len__(self) -> int:
        return len(self.structures)

    def __getitem__(self, index: int) -> dict:
        structure, found = self.structures[index], self.kept.pop(index, None)
        if found is None:
            found = self.build(structure)
            self.bytes += _size(found)
        self.kept[index] = found
        while self.kept and self.bytes > self.max_bytes:
            self.bytes -= _size(self.kept.popitem(last=False)[1])
        return {**structure, **self.fields(found)}


def _complete(data: Data) -> dict[str, torch.Tensor]:
    """Fields for a ``Data`` that lacks them."""
    natoms = len(data["pos"])
    found = {"atomic_numbers": data["z"]} if "z" in data else {}
    cell = data["cell"].reshape(3, 3) if "cell" in data else torch.zeros(3, 3, dtype=torch.float64)
    return {**found, "cell": cell, "pbc": (cell != 0).any(1), "tags": torch.full((natoms,), 2)}


def _compact(arrays: dict | tuple) -> dict | tuple:
    """The same numbers in half the memory: int32 for int64 (``collate`` widens them in its own copy)."""
    if isinstance(arrays, dict):
        return dict(zip(arrays, _compact(tuple(arrays.values()))))
    return tuple(array.astype(np.int32) if array.dtype == np.int64 else array for array in arrays)


def _size(arrays: dict | tuple) -> int:
    """Bytes of the graphs, or candidate edges, of a structure."""
    return sum(array.nbytes for array in (arrays.values() if isinstance(arrays, dict) else arrays))
