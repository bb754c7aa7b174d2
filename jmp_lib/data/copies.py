"""Which structures of a set are copies of each other, and which structures two sets share.

A copy is the same structure turned, mirrored, shifted, wrapped or moved by lattice vectors, with its atoms in another order,
or written in another primitive cell or supercell. Geometry alone decides: elements, positions, lattice, periodic directions.

Found is every copy whose atoms (and vectors of the reduced lattice) lie within TOLERANCE = 0.001 Å of their place. Never taken
for a copy is a structure of which, after the best superposition, an atom or lattice vector lies more than 0.002 Å off (where
cells differ and each is first reduced to its smallest by averaging what its translations make equal, 0.006 Å). Between the
two either may happen, as to a crystal in another cell whose own translations hold within about 0.002 Å only. In
:func:`copies` a copy of a copy is a copy.

So these are copies: mirror images (enantiomers, left and right quartz). These are not: conformers and isomers, frames of a
trajectory, polymorphs, other orders of the same atoms on one lattice, the same slab with another vacuum along a periodic
direction, the same structure with and without periodicity, the same crystal relaxed twice. Too few digits can hide a copy:
four decimals of fractions of a cell of 20 Å are 0.002 Å.

How: structures of one reduced formula are compared by means of the distances to neighbours, which do not depend on the way
of writing and change no more than the atoms move (the average minimum distances of Widdowson et al., MATCH 87, 529 (2022), by
element), so no bin has an edge; of the few pairs that agree, a superposition is looked for that moves lattice on lattice and
every atom on one of its element.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache
from itertools import product

import numpy as np
from ase.geometry import minkowski_reduce
from scipy.spatial import cKDTree
from vesin import NeighborList

from jmp_lib.data.door import MAX_ATOMIC_NUMBER
from jmp_lib.data.structures import BLOCK, StructureSet
from jmp_lib.graphs.neighbors import rank_in_sorted

TOLERANCE = 0.001  # Å, of every atom and lattice vector
LIMIT = 2 * TOLERANCE  # a least-squares superposition can move a good atom by as much again
KEY_LIMIT = 5 * TOLERANCE  # of distances within CUTOFF: two atoms and up to three lattice vectors
CUTOFF, NEAREST = 6.0, 16  # of the distances compared: Å, neighbours of each element
SEARCHED = 12  # of the numbers compared, those that vary most are looked up in a tree, the others compared one by one
REACH = 0.05  # Å, within which an atom finds its partner before the superposition is refined
STRAIGHT = 0.01  # Å, off a line: less gives no direction
STEPS = np.array(list(product(range(-2, 3), repeat=3)))


def copies(data: StructureSet) -> np.ndarray:
    """(S,) int64: the first structure that each one is a copy of, itself where it is new."""
    first = np.arange(len(data))
    for rows in _by_formula(_formulas(data)).values():
        if len(rows) < 2:
            continue
        keys, body, group = _keys(data, rows), _reader(data), rows.copy()
        for at, near in enumerate(_near(keys, keys)):
            left = near[near < at]
            while len(left):  # one of each group will do
                if _agree(keys[left[0]], keys[at]) and same(body(rows[at]), body(rows[left[0]])):
                    group[np.isin(group, group[[at, left[0]]])] = group[[at, left[0]]].min()
                    left = left[group[left] != group[at]]
                else:
                    left = left[1:]
        first[rows] = group
    return first


def shared(a: StructureSet, b: StructureSet) -> np.ndarray:
    """(P,2) int64: row of ``a`` and row of ``b`` of every pair of copies, sorted.

    Only structures whose reduced formula occurs in both sets are read, so ``b`` may be a prepared set of millions on disk.
    """
    of_a, of_b, pairs = _by_formula(_formulas(a)), _by_formula(_formulas(b)), []
    for formula in of_a.keys() & of_b.keys():
        rows, others = of_a[formula], of_b[formula]
        body_a, body_b = _reader(a), _reader(b)
        keys_a, keys_b = _keys(a, rows), _keys(b, others)
        for row, key, near in zip(rows, keys_a, _near(keys_a, keys_b)):
            near = others[near[_agree(keys_b[near], key)]]
            pairs += [(row, other) for other in near if same(body_a(row), body_b(other))]
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)


class Body:
    """Atoms and lattice of a structure: numbers (N,), pos (N,3) Å, lattice (D,3) Å, the shortest vectors of D periodic
    directions, in rows."""

    def __init__(self, numbers: np.ndarray, pos: np.ndarray, lattice: np.ndarray):
        self.numbers, self.pos = np.asarray(numbers), np.asarray(pos, float)
        cell = np.zeros((3, 3))
        cell[: len(lattice)] = lattice
        self.lattice = minkowski_reduce(cell, np.arange(3) < len(lattice))[0][: len(lattice)] if len(lattice) else cell[:0]
        self.inverse = np.linalg.pinv(self.lattice) if len(lattice) else cell[:, :0]  # (3,D): to fractions

    @classmethod
    def of(cls, structure) -> Body:
        return cls(structure["atomic_numbers"], structure["pos"], np.asarray(structure["cell"])[np.asarray(structure["pbc"], bool)])

    def images(self, vectors: np.ndarray) -> np.ndarray:
        """The lattice vectors next to ``vectors`` (..., 3)."""
        return np.round(vectors @ self.inverse) @ self.lattice

    @cached_property
    def surroundings(self) -> np.ndarray:
        """(N,K*NEAREST) Å: of every atom the distances, rising, to its neighbours of each of the K elements; CUTOFF where
        there are no more."""
        kinds, kind = np.unique(self.numbers, return_inverse=True)
        pos, across = self.pos - self.pos[0], np.linalg.svd(self.lattice)[2][len(self.lattice) :]
        pos = pos - self.images(pos)
        box = np.vstack([self.lattice, across * (np.ptp(pos @ across.T, axis=0)[:, None] + 2 * CUTOFF)])
        search = NeighborList(cutoff=CUTOFF, full_list=True)
        target, source, found = search.compute(
            points=pos, box=box, periodic=np.arange(3) < len(self.lattice), quantities="ijd")
        group = target.astype(np.int64) * len(kinds) + kind[source]
        order = np.argsort(group * CUTOFF * 2 + found)
        group, found = group[order], found[order]
        rank = rank_in_sorted(np.bincount(group, minlength=len(self.pos) * len(kinds)))
        near = rank < NEAREST
        table = np.full((len(self.pos) * len(kinds), NEAREST), CUTOFF)
        table[group[near], rank[near]] = found[near]
        return table.reshape(len(self.pos), -1)

    @cached_property
    def key(self) -> np.ndarray:
        """(K*K*NEAREST,) float32 Å: means of the surroundings of every element, the same for copies."""
        kinds = np.unique(self.numbers)
        return np.concatenate([self.surroundings[self.numbers == kind].mean(axis=0) for kind in kinds]).astype(np.float32)

    @cached_property
    def smallest(self) -> Body | None:
        """The same in its primitive cell, with the means of what its translations make equal; None where there is none
        smaller."""
        if not len(self.lattice):
            return None
        kinds, counts = np.unique(self.numbers, return_counts=True)
        most = np.gcd.reduce(counts)  # so many primitive cells at most, and translations are multiples of 1 / most
        ours = np.flatnonzero(self.numbers == kinds[counts.argmin()])
        steps = (self.pos[ours] - self.pos[ours[0]]) @ self.inverse * most
        steps, partners = np.unique(np.round(steps).astype(int) % most, axis=0), []
        for step in steps:
            partner = self.partners(self, np.eye(3), step @ self.lattice / most, LIMIT)
            partners += [(step, partner)] if partner is not None else []
        steps, partners = [np.array(found) for found in zip(*partners)]
        count = len(steps)
        sums = np.unique((steps[:, None] + steps[None]).reshape(-1, steps.shape[1]) % most, axis=0)
        if count == 1 or len(sums) > count or most % count:
            return None
        grid = (steps / most)[:, None] + STEPS[None, :, : len(self.lattice)]
        vectors = grid.reshape(-1, len(self.lattice)) @ self.lattice
        lattice = np.zeros((0, 3))
        for vector in vectors[np.argsort(np.linalg.norm(vectors, axis=1))][1:]:
            longer = np.vstack([lattice, vector])
            if _volume(longer) > 1e-3 * np.prod(np.linalg.norm(longer, axis=1)):
                lattice = longer
            if len(lattice) == len(self.lattice):
                break
        if not np.isclose(_volume(lattice) * count, _volume(self.lattice)):
            return None
        keep = np.flatnonzero(partners.min(axis=0) == np.arange(len(self.pos)))
        found = self.pos[partners[:, keep]] - (steps @ self.lattice / most)[:, None]
        found -= self.images(found - self.pos[keep])
        return Body(self.numbers[keep], found.mean(axis=0), lattice)

    def partners(self, other: Body, turn: np.ndarray, shift: np.ndarray, reach: float) -> np.ndarray | None:
        """(N,) the atom of ``other`` within ``reach`` of pos @ turn + shift of each atom, of its element and nobody
        else's; None where one has none."""
        moved, parts = self.pos @ turn + shift, []
        for start, stop in _blocks(len(moved)):  # few atoms show most misfits
            apart = moved[start:stop, None] - other.pos[None]
            apart -= other.images(apart)
            square = (apart**2).sum(axis=2)
            square[self.numbers[start:stop, None] != other.numbers[None]] = np.inf
            parts.append(square.argmin(axis=1))
            if square.min(axis=1).max() > reach**2:
                return None
        found = np.concatenate(parts)
        return found if len(np.unique(found)) == len(found) else None


def same(a: Body, b: Body) -> bool:
    """Whether they are copies, see above."""
    return any(
        _superposed(one, other)
        for one, other in product((a, a.smallest), (b, b.smallest))
        if one is not None and other is not None and len(one.pos) == len(other.pos)
    )


def _superposed(a: Body, b: Body) -> bool:
    """Whether some turn, mirror and shift brings all atoms and the lattice of ``a`` on those of ``b`` within LIMIT."""
    if len(a.lattice) != len(b.lattice) or not np.array_equal(np.sort(a.numbers), np.sort(b.numbers)):
        return False
    one, other = (np.column_stack([body.surroundings, body.numbers * CUTOFF]) for body in (a, b))
    alike = [near[_agree(other[near], row)] for row, near in zip(one, _near(one, other))]  # atoms of b like each of a
    if not all(map(len, alike)):
        return False
    origin = min(range(len(alike)), key=lambda atom: len(alike[atom]))
    lattices = list(_lattices(a.lattice, b.lattice))
    for target in alike[origin]:
        for lattice in lattices:
            for turn in _turns(a, b, origin, target, lattice):
                shift = b.pos[target] - a.pos[origin] @ turn
                partner = a.partners(b, turn, shift, REACH)
                if partner is not None and _misfit(a, b, turn, shift, partner, lattice) <= LIMIT:
                    return True
    return False


def _lattices(a: np.ndarray, b: np.ndarray) -> Iterator[np.ndarray]:
    """Bases (D,3) of the lattice ``b`` with the lengths and angles of ``a``."""
    size = len(a)
    steps = np.unique(STEPS[:, :size], axis=0)
    vectors = steps @ b
    fits = [np.flatnonzero(np.abs(np.linalg.norm(vectors, axis=1) - np.linalg.norm(one)) <= LIMIT) for one in a]

    def extended(chosen: list[int]) -> Iterator[np.ndarray]:
        if len(chosen) == size:
            if size == 0 or round(abs(np.linalg.det(steps[chosen]))) == 1:
                yield vectors[chosen]
            return
        left = fits[len(chosen)]
        for at, vector in enumerate(chosen):
            apart = np.linalg.norm(vectors[left] - vectors[vector], axis=1)
            left = left[np.abs(apart - np.linalg.norm(a[len(chosen)] - a[at])) <= 2 * LIMIT]
        for vector in left:
            yield from extended([*chosen, int(vector)])

    return extended([])


def _turns(a: Body, b: Body, origin: int, target: int, lattice: np.ndarray) -> Iterator[np.ndarray]:
    """(3,3), x @ turn, that bring the lattice of ``a`` on ``lattice`` and, where that leaves a turn open, the
    atoms farthest from ``origin`` on atoms of ``b`` as far from ``target``."""

    def extended(one: np.ndarray, other: np.ndarray) -> Iterator[np.ndarray]:
        one, other = _axes(one), _axes(other)
        if len(one) == 2:
            for sign in (1.0, -1.0):
                yield np.vstack([one, np.cross(*one)]).T @ np.vstack([other, sign * np.cross(*other)])
        else:
            from_a, from_b = a.pos - a.pos[origin], b.pos - b.pos[target]
            from_a, from_b = from_a - from_a @ one.T @ one, from_b - from_b @ other.T @ other
            far_a, far_b = np.linalg.norm(from_a, axis=1), np.linalg.norm(from_b, axis=1)
            atom = far_a.argmax()
            if far_a[atom] < STRAIGHT:  # all on the line or point that is fixed: any direction will do
                yield from extended(np.vstack([one, _across(one)]), np.vstack([other, _across(other)]))
                return
            for partner in np.flatnonzero((b.numbers == a.numbers[atom]) & (np.abs(far_b - far_a[atom]) <= 2 * LIMIT)):
                yield from extended(np.vstack([one, from_a[atom]]), np.vstack([other, from_b[partner]]))

    return iter([a.inverse @ lattice]) if len(lattice) == 3 else extended(a.lattice, lattice)


def _misfit(a: Body, b: Body, turn, shift, partner: np.ndarray, lattice: np.ndarray) -> float:
    """Largest distance in Å of an atom or lattice vector of ``a`` from its partner after a least-squares superposition."""
    there = b.pos[partner] + b.images(a.pos @ turn + shift - b.pos[partner])
    one = np.vstack([a.pos - a.pos.mean(axis=0), a.lattice])
    other = np.vstack([there - there.mean(axis=0), lattice])
    left, _, right = np.linalg.svd(one.T @ other)
    return float(np.linalg.norm(one @ (left @ right) - other, axis=1).max())


def _axes(vectors: np.ndarray) -> np.ndarray:
    """Gram and Schmidt's unit vectors for rows of vectors."""
    q, r = np.linalg.qr(vectors.T)
    return (q * np.where(np.diag(r) < 0, -1.0, 1.0)).T


def _across(axes: np.ndarray) -> np.ndarray:
    return np.linalg.svd(np.vstack([axes, np.zeros((1, 3))]))[2][-1]


def _volume(vectors: np.ndarray) -> float:
    return float(np.sqrt(max(np.linalg.det(vectors @ vectors.T), 0.0)))


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    ends = [0, *range(min(8, count), count, 256), count]
    return ((start, stop) for start, stop in zip(ends, ends[1:]) if stop > start)


def _near(rows: np.ndarray, others: np.ndarray) -> Iterator[np.ndarray]:
    """For each of ``rows`` which of ``others`` may :func:`_agree` with it, rising: the columns that vary most say so."""
    searched = np.argsort(others.std(axis=0))[-SEARCHED:]
    tree = cKDTree(others[:, searched])
    for row in rows:
        yield np.array(tree.query_ball_point(row[searched], KEY_LIMIT, p=np.inf, return_sorted=True), int)


def _agree(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether all numbers of rows differ by KEY_LIMIT at most."""
    return (np.abs(one - other) <= KEY_LIMIT).all(axis=-1)


def _keys(data: StructureSet, rows: np.ndarray) -> np.ndarray:
    return np.stack([Body.of(data.arrays(int(row))).key for row in rows])


def _reader(data: StructureSet):
    return lru_cache(256)(lambda row: Body.of(data.arrays(int(row))))


def _formulas(data: StructureSet) -> np.ndarray:
    """(S,) uint64: a number for periodic directions and atoms of every element; of periodic structures per formula unit."""
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
