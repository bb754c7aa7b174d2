"""From one structure to its four graphs: main, a2ee2a, qint and a2a (GemNet-OC, section 2 of the spec).

    main    edges that carry the edge embeddings m (made symmetric)
    a2ee2a  atom -> edge and edge -> atom interactions
    qint    the middle bond b -> a of a quadruplet c -> a <- b <- d
    a2a     atom -> atom interaction (every neighbour in the cutoff)

Only connectivity is computed here, once per structure. Distances and unit vectors are formed inside
the model from the positions, so the same graphs serve direct and gradient forces.

``build_graphs`` is the function; ``AddGraphs`` the same as a transform of torch_geometric, ``GraphCache`` a set whose
graphs are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from . import GraphConfig
from .indices import index_sets
from .neighbors import find_neighbors, nearest_per_target

GRAPHS = ("main", "a2ee2a", "qint", "a2a")


def build_graphs(structure: Mapping, config: GraphConfig) -> dict[str, np.ndarray]:
    """Connectivity of one structure: ``<graph>_edge_index`` (2, E), ``<graph>_offset`` (E, 3) for the four graphs,
    ``main_reverse`` (E,), and the index sets of ``indices.index_sets``.

    structure: pos (N, 3) Å, cell (3, 3) Å, pbc (3,), tags (N,), arrays or tensors; a dict or a ``Data``.
    ``ValueError``: it has no edge at all.
    """
    return cut_graphs([structure], [a2a_edges(structure, config)], [config])


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
    """``candidates`` without the directed edges that chance removes before the other graphs are cut (pre-training;
    step 2 of section 2.3): each with the probability ``share``, but never all."""
    edge_index, offset, squared = candidates
    kept = np.flatnonzero(rng.random(edge_index.shape[1]) >= share)
    return (edge_index.take(kept, axis=1), offset.take(kept, axis=0), squared.take(kept)) if kept.size else candidates


def cut_graphs(structures: Sequence[Mapping], candidates: Sequence[tuple], configs: Sequence[GraphConfig]) -> dict:
    """The arrays of ``build_graphs`` for structures whose atoms are numbered on, in one pass over all edges: the three
    subgraphs, symmetrisation and index sets (steps 3 and 4 of section 2.3).

    ``candidates``: for each structure the edges that ``a2a_edges`` found, or those that dropout left.
    """
    natoms = np.array([len(structure["pos"]) for structure in structures])
    index, offsets, distances = zip(*candidates)
    edge_index, offset, squared = (np.concatenate(index, axis=1, dtype=np.int64),
                                   np.concatenate(offsets), np.concatenate(distances))
    edge_index += np.repeat(np.cumsum(natoms) - natoms, [len(edges) for edges in distances])
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


def graphs_to_arrays(graphs: dict, natoms: int | np.ndarray) -> dict[str, np.ndarray]:
    """Symmetrise main, add index sets, flatten to arrays.

    ``graphs``: name -> (edge_index, offset). ``natoms``: of the structure, or (B,) of several.
    """
    main_index, main_offset, reverse = symmetrize(*graphs["main"], natoms)
    graphs = {**graphs, "main": (main_index, main_offset)}
    arrays: dict[str, np.ndarray] = {"main_reverse": reverse}
    for name in GRAPHS:
        arrays[f"{name}_edge_index"], arrays[f"{name}_offset"] = graphs[name]
    return {**arrays, **index_sets(graphs, int(np.sum(natoms)))}


def symmetrize(edge_index: np.ndarray, offset: np.ndarray, natoms: int | np.ndarray):
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


class AddGraphs(BaseTransform):
    """Puts the four graphs on a structure, as ``graphs`` (int32, for ``collate``). For one thread at a time.

    A ``Data`` of any source will do that has pos (N, 3) Å and z or atomic_numbers (N,); ``cell`` (3, 3) or (1, 3, 3),
    ``pbc`` and ``tags`` are used where it has them (else: no cell, periodic along the vectors of the cell, all tags 2).

    With ``edge_dropout`` the candidate edges are kept instead, every call draws anew which of them are left (``rng``
    may be replaced), and the field is ``candidates``: ``collate`` cuts the graphs of the whole batch at once.
    ``ValueError``: edges are to be dropped without ``rng``, or a structure has no graph.
    """

    def __init__(self, config: GraphConfig, edge_dropout: float = 0.0, rng: np.random.Generator | None = None):
        self.config, self.edge_dropout, self.rng = config, edge_dropout, rng

    def forward(self, data: Data) -> Data:
        """``data``, a copy that the caller made, with its graphs and with what ``collate`` asks for."""
        data["cell"] = cell = data["cell"].reshape(3, 3) if "cell" in data else torch.zeros(3, 3, dtype=torch.float64)
        usual = {"atomic_numbers": data["z"]} if "z" in data else {}
        for name, value in {**usual, "pbc": (cell != 0).any(1), "tags": torch.full((len(data["pos"]),), 2)}.items():
            if name not in data:
                data[name] = value
        return data.update(self.fields(self.build(data)))

    def build(self, structure: Mapping | Data) -> dict | tuple:
        """Graphs of a structure, or its candidate edges if edges are dropped later, int32 in place of int64."""
        edges = a2a_edges(structure, self.config)
        halved = (lambda array: array.astype(np.int32)  # noqa: E731 (collate widens them)
                  if array.dtype == np.int64 else array)
        if self.edge_dropout:
            return tuple(map(halved, edges))
        return {name: halved(array) for name, array in cut_graphs([structure], [edges], [self.config]).items()}

    def fields(self, built: dict | tuple) -> dict:
        """``graphs`` or ``candidates`` of a structure, of what ``build`` made of it."""
        if not self.edge_dropout:
            return {"graphs": built}
        if self.rng is None:
            raise ValueError("edge dropout needs a random generator: give AddGraphs or GraphCache an rng")
        return {"candidates": (drop_edges(built, self.edge_dropout, self.rng), self.config)}


class GraphCache(AddGraphs):
    """A sequence of structures with their graphs: ``cache[i]`` is a dict of the structure's fields and ``graphs``.

    max_mb: graphs are kept until there are so many megabytes (10^6 bytes) of them, None: without limit; the others are
    built at every access.
    """

    def __init__(self, structures: Sequence, config: GraphConfig, edge_dropout: float = 0.0,
                 rng: np.random.Generator | None = None, *, max_mb: float | None = None):
        super().__init__(config, edge_dropout, rng)
        self.structures, self.max_bytes = structures, np.inf if max_mb is None else max_mb * 1e6
        self.kept, self.bytes = {}, 0

    def __len__(self) -> int:
        return len(self.structures)

    def structure(self, index: int) -> Mapping:
        """The fields of a structure, without graphs."""
        return self.structures[index]

    def __getitem__(self, index: int) -> dict:
        structure, built = self.structure(index), self.kept.get(index)
        if built is None:
            built = self.build(structure)
            size = sum(array.nbytes for array in (built.values() if isinstance(built, dict) else built))
            if self.bytes + size <= self.max_bytes:
                self.kept[index], self.bytes = built, self.bytes + size
        return {**structure, **self.fields(built)}
