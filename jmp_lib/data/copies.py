"""Which structures of a set are copies of each other, and which structures two sets share.

A copy is the same structure turned, mirrored, shifted, wrapped or moved by lattice vectors, with its atoms in
another order, or written in another primitive cell or supercell. Geometry alone decides: copies are structures of
one reduced formula, the same periodic directions and one volume for an atom in which, for every pair of elements,
all distances up to 12 Å from atoms of the one to their first, second, ... neighbour of the other are the same
within 0.003 Å. So every copy is found whose atoms (and vectors of the lattice) lie within TOLERANCE = 0.001 Å of
their place; in :func:`copies` a copy of a copy is a copy.

No copies are conformers and isomers, frames of a trajectory, polymorphs, other orders of the same atoms on one
lattice, the same slab with another vacuum along a periodic direction, the same crystal relaxed twice. Too few digits
can hide a copy, and what differs beyond 12 Å alone is taken for one.

Pairs to be compared are found by the means of the distances to the nearest neighbours of each element (the average
minimum distances of Widdowson et al., MATCH 87, 529 (2022), by element).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial

import numpy as np
from scipy.spatial import cKDTree

from jmp_lib.data.door import MAX_ATOMIC_NUMBER
from jmp_lib.data.structures import BLOCK, StructureSet
from jmp_lib.graphs.neighbors import find_neighbors, rank_in_sorted

TOLERANCE = 0.001  # Å, of every atom and lattice vector
LIMIT = 3 * TOLERANCE  # of distances: two atoms and a lattice vector
REACH = 12.0  # Å, of the distances that are compared
CUTOFF, NEAREST = 6.0, 16  # of the means: Å, neighbours of each element
SEARCHED = 12  # of the means, those that vary most are looked up in a tree, the others compared one by one
SAME_VOLUME = 1e-3  # of the volume for an atom


def copies(data: StructureSet) -> np.ndarray:
    """(S,) int64: the first structure that each one is a copy of, itself where it is new."""
    first, whole = np.arange(len(data)), _reader(data)
    for rows in _by_formula(_formulas(data)).values():
        if len(rows) < 2:
            continue
        keys, group = _keys(data, rows), rows.copy()
        for at, near in enumerate(_near(keys, keys)):
            left = near[near < at]
            while len(left):  # one of each group will do
                if same(whole(rows[at]), whole(rows[left[0]])):
                    group[np.isin(group, group[[at, left[0]]])] = group[[at, left[0]]].min()
                    left = left[group[left] != group[at]]
                else:
                    left = left[1:]
        first[rows] = group
    return first


def shared(a: StructureSet, b: StructureSet) -> np.ndarray:
    """(P,2) int64: row of ``a`` and row of ``b`` of every pair of copies, sorted.

    Only structures whose reduced formula occurs in both sets are read, so ``b`` may be a prepared set
    of millions on disk.
    """
    of_a, of_b, pairs = _by_formula(_formulas(a)), _by_formula(_formulas(b)), []
    whole_a, whole_b = _reader(a), _reader(b)
    for formula in of_a.keys() & of_b.keys():
        rows, others = of_a[formula], of_b[formula]
        for row, near in zip(rows, _near(_keys(a, rows), _keys(b, others))):
            pairs += [(row, other) for other in others[near] if same(whole_a(row), whole_b(other))]
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)


def same(a: tuple[float, np.ndarray], b: tuple[float, np.ndarray]) -> bool:
    """Whether two structures of one formula (volume for an atom, :func:`distances` up to REACH) are copies."""
    (volume, one), (other_volume, other) = a, b
    if abs(volume - other_volume) > SAME_VOLUME * max(volume, 1.0):
        return False
    atoms, width = np.lcm(len(one), len(other)), max(one.shape[2], other.shape[2])
    one, other = (np.repeat(np.pad(table, ((0, 0), (0, 0), (0, width - table.shape[2])), constant_values=REACH),
                            atoms // len(table), axis=0) for table in (one, other))  # fmt: skip
    return bool((np.abs(one - other) <= LIMIT).all())


def distances(structure, cutoff: float, nearest: int | None = None) -> np.ndarray:
    """(N,K,W) float32 Å: of every atom, by element, the distances, rising, to its (``nearest``) neighbours of each of
    the K elements; ``cutoff`` where there are no more."""
    kinds, kind = np.unique(structure["atomic_numbers"], return_inverse=True)
    edges, _, squared = find_neighbors(*(structure[key] for key in ("pos", "cell", "pbc")), cutoff, periodic=True)
    group, found = edges[1] * len(kinds) + kind[edges[0]], np.sqrt(squared)
    order = np.lexsort((found, group))
    count = np.bincount(group, minlength=len(kind) * len(kinds))
    rank = rank_in_sorted(count)
    table = np.full((len(count), nearest or count.max(initial=0)), cutoff, np.float32)
    near = rank < table.shape[1]
    table[group[order][near], rank[near]] = found[order][near]
    return table.reshape(len(kind), len(kinds), -1)[np.argsort(kind, kind="stable")]


def _whole(data: StructureSet, row: int) -> tuple[float, np.ndarray]:
    """What :func:`same` compares: distances sorted over all atoms of an element, so that no order of atoms counts."""
    structure = data.arrays(int(row))
    table, numbers = distances(structure, REACH), np.sort(structure["atomic_numbers"])
    lattice = structure["cell"][structure["pbc"]]
    volume = float(np.sqrt(abs(np.linalg.det(lattice @ lattice.T)))) / len(table) if len(lattice) else 0.0
    parts = [np.sort(table[numbers == kind], axis=0) for kind in np.unique(numbers)]
    return volume, np.concatenate(parts)


def _reader(data: StructureSet):
    return lru_cache(256)(partial(_whole, data))


def _keys(data: StructureSet, rows: np.ndarray) -> np.ndarray:
    """(R,K*K*NEAREST) float32 Å: means of the nearest distances over the atoms of every element,
    the same for copies."""
    found = []
    for row in rows:
        structure = data.arrays(int(row))
        table, numbers = distances(structure, CUTOFF, NEAREST), np.sort(structure["atomic_numbers"])
        found.append(np.concatenate([table[numbers == kind].mean(axis=0).ravel() for kind in np.unique(numbers)]))
    return np.stack(found)


def _near(rows: np.ndarray, others: np.ndarray) -> Iterator[np.ndarray]:
    """For each of ``rows`` which of ``others`` differ from it by LIMIT at most in all numbers, rising."""
    searched = np.argsort(others.std(axis=0))[-SEARCHED:]
    tree = cKDTree(others[:, searched])
    for row in rows:
        near = np.array(tree.query_ball_point(row[searched], LIMIT, p=np.inf, return_sorted=True), int)
        yield near[(np.abs(others[near] - row) <= LIMIT).all(axis=-1)]


def _formulas(data: StructureSet) -> np.ndarray:
    """(S,) uint64: a number for periodic directions and atoms of every element; of periodic
    structures per formula unit."""
    factors = np.random.default_rng(0).integers(2**63, size=MAX_ATOMIC_NUMBER + 2, dtype=np.uint64)
    found = []
    for start in range(0, len(data), BLOCK):
        part = data[start : start + BLOCK]
        count, natoms = len(part), part.natoms
        codes = np.repeat(np.arange(count) * (MAX_ATOMIC_NUMBER + 1), natoms) + part.atomic_numbers
        counts = np.bincount(codes, minlength=count * (MAX_ATOMIC_NUMBER + 1)).reshape(count, -1)
        directions = part.pbc.sum(axis=1)
        counts //= np.where(directions > 0, np.gcd.reduce(counts, axis=1), 1)[:, None]
        found.append((np.column_stack([counts, directions]).astype(np.uint64) * factors).sum(axis=1, dtype=np.uint64))
    return np.concatenate(found)


def _by_formula(formulas: np.ndarray) -> dict[int, np.ndarray]:
    """Rows of every number, rising."""
    order = np.argsort(formulas, kind="stable")
    values, starts = np.unique(formulas[order], return_index=True)
    return dict(zip(values.tolist(), np.split(order, starts[1:])))
