"""All neighbours of every atom within the cutoff: the candidates from which the four graphs are cut.

An edge runs from a source image to a target atom: the source sits at ``pos[s] + offset @ cell``. The search itself is
vesin's cell list in float64 (linear cost, any cell, any number of images); the cutoff is then applied to squared
distances in float32, the precision in which the published model selects its edges.
"""

from __future__ import annotations

import math

import numpy as np
from vesin import NeighborList

# Periodic pairs closer than 0.01 Å are the same atom listed twice (ARCHITECTURE 2.2).
MIN_SQUARED_DISTANCE = 1e-4
LONGEST = 2**31 - 1  # above the bits of every distance


def find_neighbors(pos: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float,
                   periodic: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directed candidate edges, ordered by target, then source, then offset: edge_index (2, E) int64 with row 0 =
    source and row 1 = target, offset (E, 3) int64 and squared distance (E,) float32 in Å².

    pos: (N, 3) Å. cell: (3, 3) Å, rows are lattice vectors. pbc: (3,) bool. periodic: False ignores the cell
    (molecules). Periodic graphs keep 0.01 Å < D <= cutoff, self images included; molecules keep D < cutoff. Unlike
    the published code the search is complete for atoms outside the cell, so that moving an atom by a lattice vector
    changes nothing.
    """
    periodic = periodic and bool(np.any(pbc))
    search = NeighborList(cutoff=float(cutoff) * (1 + 1e-5) + 1e-5, full_list=True)
    # vesin's first atom is the origin of the vector, the second sits at pos[second] + S @ cell. Both arrays are
    # views of memory that belongs to ``search``: nothing of them is returned.
    pairs, shift = search.compute(points=np.asarray(pos, dtype=np.float64),
                                  box=np.asarray(cell, dtype=np.float64) if periodic else np.zeros((3, 3)),
                                  periodic=np.asarray(pbc, dtype=bool) if periodic else False, quantities="PS",
                                  copy=False)
    pairs, natoms, (images, image) = pairs.astype(np.int64), max(len(pos), 1), distinct_images(shift)
    code = pairs[:, 0] * natoms  # a number for each edge, in place: large new arrays cost more than what is computed
    code += pairs[:, 1]
    code *= len(images)
    code += image
    code.sort(kind="stable")  # of all kinds the quickest here: the list comes nearly sorted
    atoms, edge_index = code // len(images), np.empty((2, len(code)), dtype=np.int64)
    image = code - atoms * len(images)  # half the time of np.divmod
    edge_index[1] = atoms // natoms
    edge_index[0] = atoms - edge_index[1] * natoms
    squared = squared_distance(pos, cell, edge_index[0], edge_index[1], images, image)
    limit = np.float32(cutoff) ** 2
    keep = (squared > MIN_SQUARED_DISTANCE) & (squared <= limit) if periodic else squared < limit
    if not keep.all():
        edge_index, image, squared = edge_index[:, keep], image[keep], squared[keep]
    return edge_index, images.take(image, axis=0), squared


def distinct_images(offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images (I, 3) int64 in the order of their components (not every one need occur), and the row of each
    offset in them (E,)."""
    if not offset.any():  # also without any edge
        return np.zeros((1, 3), np.int64), np.zeros(len(offset), np.int64)
    low = [int(column.min()) for column in offset.T]
    span = [int(column.max()) - first + 1 for column, first in zip(offset.T, low)]
    if math.prod(span) > 1000 + len(offset):  # atoms many cells apart: no full grid of images
        images, row = np.unique(offset, axis=0, return_inverse=True)
        return images.astype(np.int64), row.reshape(-1)
    row = np.zeros(len(offset), dtype=np.int64)
    for column, first, width in zip(offset.T, low, span):
        row *= width
        row += column
        row -= first
    return np.indices(span).reshape(3, -1).T + low, row


def squared_distance(pos, cell, source, target, images, image) -> np.ndarray:
    """(E,) float32 squared distances ‖pos[t] − (pos[s] + images[image]·cell)‖² in Å²."""
    pos = np.asarray(pos, dtype=np.float32)
    shift = images.astype(np.float32) @ np.asarray(cell, dtype=np.float32)
    squared = np.zeros(len(source), dtype=np.float32)
    for axis in range(3):  # column by column, summed in the order of the components
        x = pos[:, axis].copy()
        delta = x.take(source)
        delta += shift[:, axis].copy().take(image)
        np.subtract(x.take(target), delta, out=delta)
        delta *= delta
        squared += delta
    return squared


def nearest_per_target(target: np.ndarray, distance: np.ndarray, limit: np.ndarray,
                       ranked: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
    """The shortest edges of every target: kept (K,) numbers of edges, ascending, and rank (K,), 0 for the shortest
    edge of a target, 1 for the next; with ``ranked=False`` None where all edges are kept.

    target: (E,) ascending. distance: (E,) float32, not negative. limit: (N,) how many edges each target keeps. Ties are
    broken by the order of the edges, so the choice is reproducible.
    """
    count = np.bincount(target, minlength=len(limit))
    kept = np.arange(target.size)
    if not ranked and (count <= limit).all():
        return kept, None
    bits = distance.view(np.int32)  # of numbers that are not negative: in the order of the numbers, and compared sooner
    if target.size and (count > limit).any():
        # Only edges no longer than the last one kept need sorting.
        table = np.full((len(limit), count.max()), LONGEST, dtype=np.int32)
        table[np.arange(table.shape[1]) < count[:, None]] = bits
        kept = np.flatnonzero(bits <= _last_kept(table, limit).take(target))
        target, bits = target.take(kept), bits.take(kept)
        count = np.bincount(target, minlength=len(limit))
    rank = np.empty(kept.size, dtype=np.int64)
    rank[np.argsort((target.astype(np.int64) << 32) + bits, kind="stable")] = rank_in_sorted(count)
    inside = rank < limit.take(target)
    return (kept, rank) if inside.all() else (kept[inside], rank[inside])


def _last_kept(table: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """(N,) the limit-th smallest value of each row (LONGEST where the row may keep all)."""
    last = np.full(len(limit), LONGEST, dtype=table.dtype)
    for most in np.unique(limit):
        if 0 < most <= table.shape[1]:
            rows = np.flatnonzero(limit == most)
            last[rows] = np.partition(table.take(rows, axis=0), most - 1, axis=1)[:, most - 1]
    return last


def rank_in_sorted(count: np.ndarray) -> np.ndarray:
    """0, 1, … count[0]-1, 0, 1, … count[1]-1, …: running numbers of members that are ordered by group."""
    ends = np.cumsum(count)
    return np.arange(ends[-1] if ends.size else 0) - np.repeat(ends - count, count)


def order_by_group(group: np.ndarray) -> np.ndarray:
    """Stable order by group; the linear radix sort of 16-bit numbers where they suffice."""
    return np.argsort(group.astype(np.uint16) if group.max(initial=0) < 2**16 else group, kind="stable")


def rank_in_group(group: np.ndarray) -> np.ndarray:
    """Running number 0, 1, 2, … of every member inside its group; ``group`` in any order."""
    count = np.bincount(group)
    if (group[1:] >= group[:-1]).all():
        return rank_in_sorted(count)
    rank = np.empty(group.size, dtype=np.int64)
    rank[order_by_group(group)] = rank_in_sorted(count)
    return rank
