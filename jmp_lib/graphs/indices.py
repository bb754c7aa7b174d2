"""Index sets of triplets and quadruplets, without ever listing the quadruplets.

Every interaction sums over edges that share a target atom, so a member is addressed by a slot (target atom, running
number at that atom). All pairs at an atom take part except those in which both edges come from the same image; only
these few exceptions are listed here (section 3 of the spec; the sums themselves are in ``jmp_lib.model.interactions``).

    e2e         edges b -> a and c -> a of main                    exception: the edge itself
    a2e, e2a    a2ee2a edge and main edge at the same atom         exception: ``ae_same``
    q-in        main edge d -> b and qint edge b -> a              exception: ``qin_back`` (d is a)
    q-out       qint edge b -> a and main edge c -> a              exception: ``qout_same`` (c is b)
    quadruplet  one q-in and one q-out of the same qint edge       exception: ``quad_same`` (c is d)
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from .neighbors import order_by_group, rank_in_group, rank_in_sorted

AT_ONCE = 2000  # qint edges whose q-out are looked up together: arrays that stay in the processor's cache


def pairs(left: np.ndarray, order: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All (i, j) where left[i] is the atom of j. ``order``: all j by atom; ``count``:
    how many of them each atom has."""
    repeats = count.take(left)
    first = (np.cumsum(count) - count).take(left)
    i = np.repeat(np.arange(left.size), repeats)
    return i, order.take(rank_in_sorted(repeats) + first.take(i)) if i.size else np.zeros(0, np.int64)


def index_sets(graphs: dict, natoms: int) -> dict[str, np.ndarray]:
    """Slots and exceptions of one structure, or of several whose atoms are numbered on.

    ``graphs``: name -> (edge_index, offset), main symmetric.

    Returns (all int64):
        main_rank, a2ee2a_rank, qint_rank (E,): running number of an edge at its target.
        a2a_pair (E_aa,): number of the (source, target) pair of an a2a edge, all images together;
        pair_index (2, P): these pairs; pair_rank (P,).
        ae_same (2, X): main edge, a2ee2a edge. qin_back (2, X): qint edge, main edge.
        qout_same (2, X): qint edge, main edge. quad_same (3, X): qint edge p, main edge j = c -> a,
        main edge i = d -> b with c = d.
    """
    main, ae, q = (graphs[name][0] for name in ("main", "a2ee2a", "qint"))
    degree = np.bincount(main[1], minlength=natoms)
    by_target = order_by_group(main[1])
    main_rank = np.empty(main.shape[1], dtype=np.int64)
    main_rank[by_target] = rank_in_sorted(degree)
    a2a_pair, pair_index = image_pairs(graphs["a2a"][0], natoms)
    return {
        "main_rank": main_rank,
        "a2ee2a_rank": rank_in_group(ae[1]),
        "qint_rank": rank_in_group(q[1]),
        "a2a_pair": a2a_pair,
        "pair_index": pair_index,
        "pair_rank": rank_in_group(pair_index[1]),
        **_exceptions(graphs, natoms, by_target, degree),
    }


def _exceptions(graphs: dict, natoms: int, by_target: np.ndarray, degree: np.ndarray) -> dict[str, np.ndarray]:
    """The four lists of exceptions, looked up in the main graph by numbers of edges: (target·N +
    source)·images + image.

    Numbers of images add like their offsets: image(a ± b) = image(a) ± image(b), with a number of its own for each sum.
    """
    (main, main_o), (ae, ae_o), (q, q_o) = graphs["main"], graphs["a2ee2a"], graphs["qint"]
    span = 4 * max(max(int(o.max(initial=0)), -int(o.min(initial=0))) for o in (main_o, ae_o, q_o)) + 1
    if natoms**2 * span**3 >= 2**62:
        raise ValueError(f"{natoms} atoms lie in cells too far apart: wrap the positions into the "
                         "cell before building graphs")

    def image(offset: np.ndarray) -> np.ndarray:
        if span == 1:
            return np.zeros(len(offset), dtype=np.int64)
        x, y, z = offset.astype(np.int64, copy=False).T
        return x * span**2 + y * span + z

    def edge(source: np.ndarray, target: np.ndarray, image: np.ndarray) -> np.ndarray:
        return (target * natoms + source) * span**3 + image

    main_image, q_image = image(main_o), image(q_o)
    # c -> b with the image of c as seen from b: the offset of c -> a minus that of b -> a. The two halves of the
    # sum belong to p and to j. Where c is b itself (no quadruplet) this is an atom on itself: never an edge.
    of_p, of_j = edge(np.int64(0), q[0], -q_image), edge(main[0], np.int64(0), main_image)
    edge_of = pd.Index(edge(main[0], main[1], main_image)).get_indexer  # numbers -> edges, -1: there is none
    queries = [edge(ae[0], ae[1], image(ae_o)), edge(q[1], q[0], -q_image), edge(q[0], q[1], q_image)]
    found = edge_of(np.concatenate(queries))
    ae_main, back, same = found[: len(queries[0])], *found[len(queries[0]) :].reshape(2, -1)

    quads = []
    for first in range(0, max(q.shape[1], 1), AT_ONCE):
        p, j = pairs(q[1, first : first + AT_ONCE], by_target, degree)
        p += first
        at, i = _present(edge_of(of_p.take(p) + of_j.take(j)))
        quads.append(np.stack([p.take(at), j.take(at), i]))
    return {
        "ae_same": np.stack(_present(ae_main)[::-1]),
        "qin_back": np.stack(_present(back)),
        "qout_same": np.stack(_present(same)),
        "quad_same": quads[0] if len(quads) == 1 else np.concatenate(quads, axis=1),
    }


def _present(edge: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which queries were found, and the edges of those."""
    at = np.flatnonzero(edge >= 0)
    return at, edge.take(at)


def image_pairs(edge_index: np.ndarray, natoms: int) -> tuple[np.ndarray, np.ndarray]:
    """The (source, target) pairs of a graph, by target and source: number of each edge's pair (E,), pairs (2, P)."""
    code = edge_index[1] * natoms + edge_index[0]
    new = np.ones(code.size, dtype=bool)
    np.not_equal(code[1:], code[:-1], out=new[1:])
    if (code[1:] >= code[:-1]).all():
        return np.cumsum(new) - 1, edge_index[:, new]
    pairs, number = np.unique(code, return_inverse=True)
    return number.reshape(-1), np.stack([pairs % natoms, pairs // natoms])
