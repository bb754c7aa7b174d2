"""From one structure to its four graphs: main, a2ee2a, qint and a2a (GemNet-OC, section 2 of the spec).

    main    edges that carry the edge embeddings m (made symmetric)
    a2ee2a  atom -> edge and edge -> atom interactions
    qint    the middle bond b -> a of a quadruplet c -> a <- b <- d
    a2a     atom -> atom interaction (every neighbour in the cutoff)

Only connectivity is computed here, once per structure. Distances and unit vectors are formed inside
the model from the positions, so the same graphs serve direct and gradient forces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .indices import index_sets
from .neighbors import find_neighbors, nearest_per_target

GRAPHS = ("main", "a2ee2a", "qint", "a2a")


@dataclass(frozen=True)
class GraphConfig:
    """How graphs are cut.

    cutoff: Å, the same for all four graphs. max_neighbors: n; the limits per target atom are
    main n, a2ee2a ⌊20n/30⌋, qint ⌊8n/30⌋, a2a ⌊1000n/30⌋. periodic: search images of the cell.
    reduce_above: ((atoms, n), …) replaces n in larger structures (MatBench, QMOF).
    """

    cutoff: float = 12.0
    max_neighbors: int = 30
    periodic: bool = True
    qint_tags: tuple[int, ...] = (1, 2)
    reduce_above: tuple[tuple[int, int], ...] = ()

    def limits(self, natoms: int = 0) -> dict[str, int]:
        """Neighbour limit of each graph for a structure of ``natoms`` atoms."""
        n = self.max_neighbors
        for threshold, reduced in sorted(self.reduce_above):
            if natoms > threshold:
                n = reduced
        return {"main": n, "a2ee2a": 20 * n // 30, "qint": 8 * n // 30, "a2a": 1000 * n // 30}


def build_graphs(
    structure: dict,
    config: GraphConfig,
    *,
    edge_dropout: float = 0.0,
    rng: np.random.Generator | None = None,
) -> dict[str, np.ndarray]:
    """Connectivity of one structure.

    Args:
        structure: dict with pos (N, 3) Å, cell (3, 3), pbc (3,), tags (N,).
        edge_dropout: probability with which every directed a2a edge is removed before the other
            graphs are cut from it (pre-training only); ``rng`` draws.

    Returns:
        ``<graph>_edge_index`` (2, E), ``<graph>_offset`` (E, 3) for the four graphs, ``main_reverse``
        (E,), and the index sets of ``indices.index_sets``.

    Raises:
        ValueError: the structure has no edge at all.
    """
    candidates = a2a_edges(structure, config)
    return derive_graphs(structure, candidates, config, edge_dropout=edge_dropout, rng=rng)


def a2a_edges(structure: dict, config: GraphConfig):
    """The atom-atom graph: (edge_index, offset, squared distance), limited per target."""
    pos = structure["pos"]
    if len(pos) == 0:
        raise ValueError(f"structure {structure.get('id', '?')} has no atoms")
    edge_index, offset, squared = find_neighbors(
        pos, structure["cell"], structure["pbc"], config.cutoff, config.periodic
    )
    keep = nearest_per_target(edge_index[1], squared, config.limits(len(pos))["a2a"])
    if keep.size == 0:
        raise ValueError(
            f"structure {structure.get('id', '?')} has no pair of atoms within {config.cutoff} Å, "
            "so it has no graph; leave it out or raise the cutoff"
        )
    return edge_index[:, keep], offset[keep], squared[keep]


def derive_graphs(structure, candidates, config, *, edge_dropout=0.0, rng=None) -> dict:
    """Edge dropout, the three subgraphs, symmetrisation and index sets (steps 2-4 of section 2.3)."""
    edge_index, offset, squared = candidates
    if edge_dropout > 0:
        kept = rng.random(edge_index.shape[1]) >= edge_dropout
        if kept.any():
            edge_index, offset, squared = edge_index[:, kept], offset[kept], squared[kept]
    distance = np.sqrt(squared)
    limits = config.limits(len(structure["pos"]))
    graphs = {"a2a": (edge_index, offset)}
    for name in ("main", "a2ee2a", "qint"):
        keep = nearest_per_target(edge_index[1], distance, limits[name])
        if name == "qint":
            tagged = np.isin(structure["tags"], config.qint_tags)
            keep = keep[tagged[edge_index[0, keep]] | tagged[edge_index[1, keep]]]
        graphs[name] = (edge_index[:, keep], offset[keep])
    return graphs_to_arrays(graphs, len(structure["pos"]))


def graphs_to_arrays(graphs: dict, natoms: int) -> dict[str, np.ndarray]:
    """Symmetrise main, add index sets, flatten to arrays. ``graphs``: name -> (edge_index, offset)."""
    graphs = dict(graphs)
    main_index, main_offset, reverse = symmetrize(*graphs["main"])
    graphs["main"] = (main_index, main_offset)
    arrays: dict[str, np.ndarray] = {"main_reverse": reverse}
    for name in GRAPHS:
        arrays[f"{name}_edge_index"], arrays[f"{name}_offset"] = graphs[name]
    arrays.update(index_sets(graphs, natoms))
    return arrays


def symmetrize(edge_index: np.ndarray, offset: np.ndarray):
    """Keep s < t (or s = t with a negative first non-zero offset) and add every reverse.

    Returns edge_index (2, E), offset (E, 3) and reverse (E,): first the kept edges, then their
    reverses. Because atom numbers are compared, the result depends on the order of the atoms
    wherever a neighbour limit cuts a pair in one direction only; that is the published behaviour.
    """
    source, target = edge_index
    first = np.where(offset[:, 0] != 0, offset[:, 0], np.where(offset[:, 1] != 0, offset[:, 1], offset[:, 2]))
    keep = (source < target) | ((source == target) & (first < 0))
    half, offset = edge_index[:, keep], offset[keep]
    count = half.shape[1]
    reverse = np.r_[np.arange(count, 2 * count), np.arange(count)]
    return np.concatenate([half, half[::-1]], axis=1), np.concatenate([offset, -offset]), reverse
