"""All neighbours of every atom within the cutoff: the candidates from which the four graphs are cut.

An edge runs from a source image to a target atom: the source sits at ``pos[s] + offset @ cell``.
The search itself is vesin's cell list in float64 (linear cost, any cell, any number of images); the
cutoff is then applied to squared distances in float32, the precision in which the published model
selects its edges.
"""

from __future__ import annotations

import numpy as np
from vesin import NeighborList

# Periodic pairs closer than 0.01 Å are the same atom listed twice (ARCHITECTURE 2.2).
MIN_SQUARED_DISTANCE = 1e-4


def find_neighbors(
    pos: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float, periodic: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directed candidate edges, ordered by target, then source, then offset.

    Args:
        pos: (N, 3) Å. cell: (3, 3) Å, rows are lattice vectors. pbc: (3,) bool.
        cutoff: Å. periodic: False ignores the cell (molecules).

    Returns:
        edge_index (2, E) int64 with row 0 = source and row 1 = target, offset (E, 3) int64 and
        distance (E,) float32 in Å.

    Periodic graphs keep 0.01 Å < D <= cutoff, self images included; molecules keep D < cutoff.
    Unlike the published code the search is complete for atoms outside the cell, so that moving an
    atom by a lattice vector changes nothing.
    """
    periodic = bool(periodic) and bool(np.any(pbc))
    box = np.asarray(cell, dtype=np.float64) if periodic else np.zeros((3, 3))
    search = NeighborList(cutoff=float(cutoff) * (1 + 1e-5) + 1e-5, full_list=True)
    # vesin's "i" is the atom at the origin of the vector, "j" sits at pos[j] + S @ cell.
    target, source, offset = search.compute(
        points=np.asarray(pos, dtype=np.float64),
        box=box,
        periodic=np.asarray(pbc, dtype=bool) if periodic else False,
        quantities="ijS",
    )
    source, target = source.astype(np.int64), target.astype(np.int64)
    offset = offset.astype(np.int64)
    squared = squared_distance(pos, cell, source, target, offset)
    limit = np.float32(cutoff) ** 2
    keep = (squared > MIN_SQUARED_DISTANCE) & (squared <= limit) if periodic else squared < limit
    source, target, offset, squared = source[keep], target[keep], offset[keep], squared[keep]
    order = np.lexsort((offset[:, 2], offset[:, 1], offset[:, 0], source, target))
    return np.stack([source, target])[:, order], offset[order], squared[order]


def squared_distance(pos, cell, source, target, offset) -> np.ndarray:
    """(E,) float32 squared distances ‖pos[t] − (pos[s] + offset·cell)‖² in Å²."""
    pos = np.asarray(pos, dtype=np.float32)
    image = pos[source] + offset.astype(np.float32) @ np.asarray(cell, dtype=np.float32)
    return ((pos[target] - image) ** 2).sum(-1)


def nearest_per_target(target: np.ndarray, distance: np.ndarray, limit: int) -> np.ndarray:
    """Indices (ascending) of the ``limit`` shortest edges of every target.

    Ties are broken by the order of the edges (a stable sort), so the choice is reproducible.
    """
    if target.size == 0 or np.bincount(target).max() <= limit:
        return np.arange(target.size)
    order = np.lexsort((distance, target))
    rank = np.empty(target.size, dtype=np.int64)
    rank[order] = rank_in_group(target[order])
    return np.flatnonzero(rank < limit)


def rank_in_group(group: np.ndarray) -> np.ndarray:
    """Running number 0, 1, 2, … of every member inside its group; ``group`` in any order."""
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    start = np.r_[0, np.flatnonzero(np.diff(ordered)) + 1] if group.size else np.zeros(0, np.int64)
    length = np.diff(np.r_[start, group.size])
    rank = np.empty(group.size, dtype=np.int64)
    rank[order] = np.arange(group.size) - np.repeat(start, length)
    return rank
