"""How large the graphs of a structure are, before they are built: for batches of equal size.

Time and memory of a training step go with the main edges (about 92 % of the operations are products with
one row per main edge, and the arrays kept for the backward pass have such rows), then with triplets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .build import GraphConfig
from .indices import count_members


@dataclass(frozen=True)
class GraphCost:
    """Numbers of edges of the four graphs, of e2e + a2e + e2a triplets and of quadruplets."""

    main: int
    a2ee2a: int
    qint: int
    a2a: int
    triplets: int
    quadruplets: int
    exact: bool

    @property
    def bytes(self) -> int:
        """Bytes of the four graphs and their slots in a batch: int64 indices, float64 offsets; no exceptions."""
        index, offset, word = 16, 24, 8
        return sum((self.main, self.a2ee2a, self.qint, self.a2a)) * (index + offset + word) + self.main * word


def graph_cost(structure: dict, config: GraphConfig) -> GraphCost:
    """Sizes of the graphs of ``structure``: counted where it carries ``graphs``, else estimated without a search.

    Estimated: every atom has as many neighbours as the density of the cell (periodic; vacuum counts, so a2a of a
    slab comes out too small) or the mean number of atoms in the cutoff (molecules) gives, up to the limits; main
    edges do not change in number by being made symmetric. Takes pos (N, 3) Å, cell (3, 3), pbc (3,), tags (N,);
    linear in N (of a molecule at most 512 atoms are compared with all others).

    An estimate depends on nothing but the structure, so batches made from estimates are the same in every run;
    counts of graphs built with edge dropout change with every draw.
    """
    natoms = len(structure["pos"])
    if "graphs" in structure:
        graphs = structure["graphs"]
        e2e, a2e, e2a, quadruplets = count_members(graphs, natoms)
        main, a2ee2a, qint, a2a = (graphs[f"{name}_edge_index"].shape[1] for name in ("main", "a2ee2a", "qint", "a2a"))
        return GraphCost(main, a2ee2a, qint, a2a, e2e + a2e + e2a, quadruplets, True)
    limits = config.limits(natoms)
    neighbours = _mean_neighbours(structure, config)
    degree = {name: min(limit, neighbours) for name, limit in limits.items()}
    bare = 1 - np.isin(structure["tags"], config.qint_tags).mean() if natoms else 0.0
    main, a2ee2a, a2a = (round(natoms * degree[name]) for name in ("main", "a2ee2a", "a2a"))
    qint = round(natoms * degree["qint"] * (1 - bare**2))  # an edge needs one tagged end
    others = max(degree["main"] - 1, 0)
    triplets = round(main * others + 2 * a2ee2a * others)
    return GraphCost(main, a2ee2a, qint, a2a, triplets, round(qint * others * max(others - 1, 0)), False)


def _mean_neighbours(structure: dict, config: GraphConfig, most: int = 512) -> float:
    """Mean number of atoms within the cutoff of an atom."""
    pos = np.asarray(structure["pos"], dtype=np.float64)
    if config.periodic and np.any(structure["pbc"]):
        volume = abs(np.linalg.det(np.asarray(structure["cell"], dtype=np.float64)))
        return len(pos) / volume * 4 / 3 * np.pi * config.cutoff**3 if volume else np.inf
    some = pos[:: -(-len(pos) // most)] if len(pos) else pos
    squared = ((some**2).sum(-1)[:, None] + (pos**2).sum(-1)) - 2 * some @ pos.T
    return np.count_nonzero(squared < config.cutoff**2) / max(len(some), 1) - 1 if len(pos) else 0.0
