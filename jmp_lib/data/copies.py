"""Which structures of a set are copies of each other: turned, mirrored, shifted, wrapped, with the atoms in another order,
crystals also in another primitive or larger cell.

Compared are distances, which all of that leaves as they are, and each may differ by 0.001 Å.

- Molecules: all distances, sorted, for every pair of elements.
- Crystals, layers, chains: for every pair of elements A and B the distances from an atom A to its first, second, ... B (at
  most 48, within 6 Å), as mean and root mean square over the atoms A. They change continuously with the atoms and do not
  depend on the cell (the average minimum distances of Widdowson et al., MATCH 87, 529 (2022), here by element).

So mirror images count as copies; and different structures of the same composition that agree in all of these distances
would, for crystals those that differ only beyond 6 Å. The same structure with and without periodicity is no copy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist
from vesin import NeighborList

from jmp_lib.graphs.neighbors import rank_in_sorted

TOLERANCE = 0.001  # Å
CUTOFF, NEAREST = 6.0, 48  # of crystals: Å, neighbours of each element
FEATURES = 16  # means of so many parts of all distances find the candidates


def copies(structures: Iterable) -> np.ndarray:
    """(S,) int64: the first structure that each one is a copy of, itself where it is new."""
    structures = list(structures)
    alike, features = defaultdict(list), []
    for row, structure in enumerate(structures):
        alike[_composition(structure)].append(row)
        features.append(_means(distances(structure)))
    pairs = []
    for rows in (np.array(rows) for rows in alike.values() if len(rows) > 1):
        # a mean of distances changes no more than the distances do, so no copy is missed
        found = cKDTree(np.stack([features[row] for row in rows])).query_pairs(TOLERANCE, p=np.inf, output_type="ndarray")
        exact = {row: distances(structures[row]) for row in rows[np.unique(found)]}
        pairs += [(i, j) for i, j in rows[found] if np.abs(exact[i] - exact[j]).max(initial=0.0) <= TOLERANCE]
    one, other = np.array(pairs, int).reshape(-1, 2).T
    count = len(structures)
    _, group = connected_components(coo_matrix((np.ones(len(one)), (one, other)), (count, count)), directed=False)
    return np.unique(group, return_index=True)[1][group]


def distances(structure) -> np.ndarray:
    """Distances in Å that are the same for copies, float64, in an order that depends on the composition alone."""
    numbers, pos = np.asarray(structure["atomic_numbers"]), np.asarray(structure["pos"], float)
    pbc, cell = np.asarray(structure["pbc"], bool), np.asarray(structure["cell"], float)
    kinds, kind = np.unique(numbers, return_inverse=True)
    if not pbc.any():
        one, other = np.triu_indices(len(pos), 1)
        pair = np.minimum(kind[one], kind[other]) * len(kinds) + np.maximum(kind[one], kind[other])
        found = pdist(pos)
        return found[np.lexsort((found, pair))]
    search = NeighborList(cutoff=CUTOFF, full_list=True)
    target, source, found = search.compute(points=pos, box=cell, periodic=pbc, quantities="ijd")
    group = target.astype(np.int64) * len(kinds) + kind[source]
    order = np.argsort(group * CUTOFF * 2 + found)
    group, found = group[order], found[order]
    rank = rank_in_sorted(np.bincount(group, minlength=len(pos) * len(kinds)))
    near = rank < NEAREST
    table = np.full((len(pos) * len(kinds), NEAREST), CUTOFF)
    table[group[near], rank[near]] = found[near]
    table = table.reshape(len(pos), -1)
    parts = [table[kind == k] for k in range(len(kinds))]
    return np.concatenate([row for part in parts for row in (part.mean(axis=0), np.sqrt((part**2).mean(axis=0)))])


def _composition(structure) -> tuple:
    """Periodic directions and atoms of every element; of periodic structures per formula unit."""
    kinds, counts = np.unique(np.asarray(structure["atomic_numbers"]), return_counts=True)
    directions = int(np.asarray(structure["pbc"], bool).sum())
    counts = counts // np.gcd.reduce(counts) if directions else counts
    return directions, tuple(kinds.tolist()), tuple(counts.tolist())


def _means(values: np.ndarray) -> np.ndarray:
    """Means of FEATURES parts of ``values``, zero for parts without one."""
    ends = np.linspace(0, len(values), FEATURES + 1).astype(int)
    sums = np.diff(np.concatenate([[0.0], np.cumsum(values)])[ends])
    return sums / np.maximum(np.diff(ends), 1)
