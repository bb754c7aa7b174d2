"""From one structure to its four graphs: main, a2ee2a, qint and a2a (GemNet-OC, section 2 of the spec).

    main    edges that carry the edge embeddings m (made symmetric)
    a2ee2a  atom -> edge and edge -> atom interactions
    qint    the middle bond b -> a of a quadruplet c -> a <- b <- d
    a2a     atom -> atom interaction (every neighbour in the cutoff)

Only connectivity is computed here, once per structure. Distances and unit vectors are formed inside
the model from the positions, so the same graphs serve direct and gradient forces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from . import GraphConfig
from .indices import index_sets
from .neighbors import find_neighbors, nearest_per_target

GRAPHS = ("main", "a2ee2a", "qint", "a2a")


def build_graphs(structure: Mapping, config: GraphConfig, *, edge_dropout: float = 0.0,
                 rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
    """Connectivity of one structure.

    Args:
        structure: pos (N, 3) Å, cell (3, 3) Å, pbc (3,), tags (N,), arrays or tensors; a dict or a ``Data``.
        edge_dropout: probability with which every directed a2a edge is removed before the other
            graphs are cut from it (pre-training only); ``rng`` draws.

    Returns:
        ``<graph>_edge_index`` (2, E), ``<graph>_offset`` (E, 3) for the four graphs, ``main_reverse``
        (E,), and the index sets of ``indices.index_sets``.

    Raises:
        ValueError: the structure has no edge at all.
    """
    edges = a2a_edges(structure, config)
    return cut_graphs([structure], [drop_edges(edges, edge_dropout, rng) if edge_dropout else edges], [config])


def a2a_edges(structure: Mapping, config: GraphConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The atom-atom graph: (edge_index, offset, squared distance), limited per target."""
    pos, cell, pbc = (np.asarray(structure[key]) for key in ("pos", "cell", "pbc"))
    if len(pos) == 0:
        raise ValueError(f"structure {structure.get('id', '?')} has no atoms")
    edges = limited(find_neighbors(pos, cell, pbc, config.cutoff, config.periodic), config, len(pos))
    if edges[2].size == 0:
        raise ValueError(f"structure {structure.get('id', '?')} has no pair of atoms within {config.cutoff} Å, "
                         "so it has no graph; leave it out or raise the cutoff")
    return edges


def limited(edges: tuple, config: GraphConfig, natoms: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Those of the edges that ``find_neighbors`` gives that the limit of the atom-atom graph keeps."""
    edge_index, offset, squared = edges
    limit = np.full(natoms, config.limits(natoms)["a2a"])
    kept, _ = nearest_per_target(edge_index[1], squared, limit, ranked=False)
    return edges if kept.size == squared.size else (edge_index[:, kept], offset[kept], squared[kept])


def drop_edges(candidates, share: float, rng: np.random.Generator):
    """``candidates`` without the directed edges that chance removes (step 2 of section 2.3); never without all."""
    edge_index, offset, squared = candidates
    kept = np.flatnonzero(rng.random(edge_index.shape[1]) >= share)
    return (edge_index.take(kept, axis=1), offset.take(kept, axis=0), squared.take(kept)) if kept.size else candidates


def cut_graphs(structures: Sequence[Mapping], candidates: Sequence[tuple], configs: Sequence[GraphConfig]) -> dict:
    """The arrays of ``build_graphs`` for structures whose atoms are numbered on, in one pass over all edges: the three
    subgraphs, symmetrisation and index sets (steps 3 and 4 of section 2.3).

    ``candidates``: for each structure the edges that ``a2a_edges`` found, or those that dropout left.
    """
    natoms = np.array([len(structure["pos"]) for structure in structures])
    edge_index, offset, squared = join_edges(candidates, natoms)
    limits = [config.limits(n) for config, n in zip(configs, natoms.tolist())]
    limit = {name: np.repeat([of_one[name] for of_one in limits], natoms) for name in ("main", "a2ee2a", "qint")}
    # The limits of the three graphs fall in this order, so each graph is a part of the one before.
    kept, rank = nearest_per_target(edge_index[1], np.sqrt(squared), limit["main"])
    edge_index_kept, offset_kept = edge_index.take(kept, axis=1), offset.take(kept, axis=0)
    target = edge_index_kept[1]
    tags = np.concatenate([np.asarray(structure["tags"]) for structure in structures])
    tagged = np.zeros(len(tags), bool)
    for wanted in {config.qint_tags for config in configs}:
        tagged |= np.isin(tags, wanted) & np.repeat([config.qint_tags == wanted for config in configs], natoms)
    graphs = {"a2a": (edge_index, offset), "main": (edge_index_kept, offset_kept)}
    for name in ("a2ee2a", "qint"):
        inside = rank < limit[name].take(target)
        if name == "qint":
            inside &= tagged.take(edge_index_kept[0]) | tagged.take(target)
        inside = np.flatnonzero(inside)
        graphs[name] = (edge_index_kept.take(inside, axis=1), offset_kept.take(inside, axis=0))
    return graphs_to_arrays(graphs, natoms)


def join_edges(candidates: Sequence[tuple], natoms: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges of all structures with the atoms numbered on; int64 edge_index, offset as it is."""
    if len(candidates) == 1:
        edge_index, offset, squared = candidates[0]
        return edge_index.astype(np.int64, copy=False), offset, squared
    index, offsets, distances = zip(*candidates)
    edge_index = np.concatenate(index, axis=1, dtype=np.int64)
    edge_index += np.repeat(np.cumsum(natoms) - natoms, [len(edges[2]) for edges in candidates])
    return edge_index, np.concatenate(offsets), np.concatenate(distances)


def graphs_to_arrays(graphs: dict, natoms: int | np.ndarray) -> dict[str, np.ndarray]:
    """Symmetrise main, add index sets, flatten to arrays.

    ``graphs``: name -> (edge_index, offset). ``natoms``: of the structure, or (B,) of several.
    """
    graphs = dict(graphs)
    main_index, main_offset, reverse = symmetrize(*graphs["main"], natoms)
    graphs["main"] = (main_index, main_offset)
    arrays: dict[str, np.ndarray] = {"main_reverse": reverse}
    for name in GRAPHS:
        arrays[f"{name}_edge_index"], arrays[f"{name}_offset"] = graphs[name]
    arrays.update(index_sets(graphs, int(np.sum(natoms))))
    return arrays


def symmetrize(edge_index: np.ndarray, offset: np.ndarray, natoms: int | np.ndarray = 0):
    """Keep s < t (or s = t with a negative first non-zero offset) and add every reverse.

    Returns edge_index (2, E), offset (E, 3) and reverse (E,): structure by structure (``natoms`` (B,), edges in
    the order of the structures) first the kept edges, then their reverses. Because atom numbers are compared,
    the result depends on the order of the atoms wherever a neighbour limit cuts a pair in one direction only;
    that is the published behaviour.
    """
    source, target = edge_index
    keep = source < target
    loops = np.flatnonzero(source == target)
    if loops.size:
        o = offset[loops]
        keep[loops] = np.where(o[:, 0] != 0, o[:, 0], np.where(o[:, 1] != 0, o[:, 1], o[:, 2])) < 0
    keep = np.flatnonzero(keep)
    half, offset = edge_index.take(keep, axis=1), offset.take(keep, axis=0)
    count = half.shape[1]
    each = np.array([count])
    if np.size(natoms) > 1:
        each = np.diff(np.searchsorted(half[1], np.cumsum(natoms)), prepend=0)
    forward = np.arange(count) + np.repeat(np.cumsum(each) - each, each)
    backward = forward + np.repeat(each, each)
    both, offsets = np.empty((2, 2 * count), np.int64), np.empty((2 * count, 3), offset.dtype)
    reverse = np.empty(2 * count, np.int64)
    for row, one, other in zip(both, half, half[::-1]):
        row[forward], row[backward] = one, other
    offsets[forward], offsets[backward] = offset, -offset
    reverse[forward], reverse[backward] = backward, forward
    return both, offsets, reverse
