"""Index sets of triplets and quadruplets, without ever listing the quadruplets.

Every interaction sums over edges that share a target atom, so a member is addressed by a slot
(target atom, running number at that atom). All pairs at an atom take part except those in which
both edges come from the same image; only these few exceptions are listed here (section 3 of the
spec; the sums themselves are in ``jmp_lib.model.interactions``).

    e2e         edges b -> a and c -> a of main                    exception: the edge itself
    a2e, e2a    a2ee2a edge and main edge at the same atom         exception: ``ae_same``
    q-in        main edge d -> b and qint edge b -> a              exception: ``qin_back`` (d is a)
    q-out       qint edge b -> a and main edge c -> a              exception: ``qout_same`` (c is b)
    quadruplet  one q-in and one q-out of the same qint edge       exception: ``quad_same`` (c is d)
"""

from __future__ import annotations

import numpy as np

from .neighbors import rank_in_group


class EdgeLookup:
    """Finds edges of one graph by (source, target, offset)."""

    def __init__(self, edge_index: np.ndarray, offset: np.ndarray, natoms: int):
        self.natoms = natoms
        self.reach = int(np.abs(offset).max(initial=0))
        code = self._code(edge_index[0], edge_index[1], offset)
        self.order = np.argsort(code)
        self.codes = code[self.order]

    def _code(self, source, target, offset) -> np.ndarray:
        width = 2 * self.reach + 1
        shifted = offset.astype(np.int64) + self.reach
        image = (shifted[:, 0] * width + shifted[:, 1]) * width + shifted[:, 2]
        return (target * self.natoms + source) * width**3 + image

    def find(self, source, target, offset) -> tuple[np.ndarray, np.ndarray]:
        """Which queries exist, and the edge number of those: (query (X,), edge (X,))."""
        if self.codes.size == 0 or source.size == 0:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        code = self._code(source, target, offset)
        at = np.minimum(np.searchsorted(self.codes, code), self.codes.size - 1)
        inside = np.all(np.abs(offset) <= self.reach, axis=1)
        query = np.flatnonzero(inside & (self.codes[at] == code))
        return query, self.order[at[query]]


def pairs_by_key(left: np.ndarray, right: np.ndarray, natoms: int) -> tuple[np.ndarray, np.ndarray]:
    """All (i, j) with left[i] == right[j], both holding atom numbers below ``natoms``."""
    order = np.argsort(right, kind="stable")
    count = np.bincount(right, minlength=natoms)
    start = np.r_[0, np.cumsum(count)[:-1]]
    repeats = count[left]
    i = np.repeat(np.arange(left.size), repeats)
    within = np.arange(i.size) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    return i, order[start[left][i] + within] if i.size else np.zeros(0, np.int64)


def index_sets(graphs: dict, natoms: int) -> dict[str, np.ndarray]:
    """Slots and exceptions of one structure; ``graphs``: name -> (edge_index, offset), main symmetric.

    Returns (all int64):
        main_rank, a2ee2a_rank, qint_rank (E,): running number of an edge at its target.
        a2a_pair (E_aa,): number of the (source, target) pair of an a2a edge, all images together;
        pair_index (2, P): these pairs; pair_rank (P,).
        ae_same (2, X): main edge, a2ee2a edge. qin_back (2, X): qint edge, main edge.
        qout_same (2, X): qint edge, main edge. quad_same (3, X): qint edge p, main edge j = c -> a,
        main edge i = d -> b with c = d.
    """
    (main, main_o), (ae, ae_o), (q, q_o) = graphs["main"], graphs["a2ee2a"], graphs["qint"]
    lookup = EdgeLookup(main, main_o, natoms)

    ae_edge, ae_main = lookup.find(ae[0], ae[1], ae_o)
    back_q, back_main = lookup.find(q[1], q[0], -q_o)
    same_q, same_main = lookup.find(q[0], q[1], q_o)

    p, j = pairs_by_key(q[1], main[1], natoms)
    own = (main[0, j] == q[0, p]) & np.all(main_o[j] == q_o[p], axis=1)
    p, j = p[~own], j[~own]
    found, i = lookup.find(main[0, j], q[0, p], main_o[j] - q_o[p])

    pair_code, a2a_pair = np.unique(graphs["a2a"][0][1] * natoms + graphs["a2a"][0][0], return_inverse=True)
    pair_index = np.stack([pair_code % natoms, pair_code // natoms])
    return {
        "main_rank": rank_in_group(main[1]),
        "a2ee2a_rank": rank_in_group(ae[1]),
        "qint_rank": rank_in_group(q[1]),
        "a2a_pair": a2a_pair.reshape(-1),
        "pair_index": pair_index,
        "pair_rank": rank_in_group(pair_index[1]),
        "ae_same": np.stack([ae_main, ae_edge]),
        "qin_back": np.stack([back_q, back_main]),
        "qout_same": np.stack([same_q, same_main]),
        "quad_same": np.stack([p[found], j[found], i]),
    }


def count_members(arrays: dict, natoms: int) -> tuple[int, int, int, int]:
    """Numbers of (e2e, a2e, e2a) triplets and of quadruplets, from degrees and exceptions alone."""
    degree = np.bincount(arrays["main_edge_index"][1], minlength=natoms)
    ae_degree = np.bincount(arrays["a2ee2a_edge_index"][1], minlength=natoms)
    e2e = int((degree * (degree - 1)).sum())
    a2e = int((degree * ae_degree).sum()) - arrays["ae_same"].shape[1]
    source, target = arrays["qint_edge_index"]
    n_in = degree[source] - np.bincount(arrays["qin_back"][0], minlength=source.size)
    n_out = degree[target] - np.bincount(arrays["qout_same"][0], minlength=source.size)
    return e2e, a2e, a2e, int((n_in * n_out).sum()) - arrays["quad_same"].shape[1]
