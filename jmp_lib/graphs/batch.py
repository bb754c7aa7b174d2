"""From structures with graphs to one batch of tensors.

Atoms of all structures are concatenated and the edges renumbered. The model works on slot tables:
row ``target * width + rank``, where ``width`` is the largest number of edges at one atom in the
batch; empty rows are zero. All of it is numpy; each array becomes a tensor once, without a copy.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch_geometric.data import Batch, Data

from .build import GRAPHS, cut_graphs
from .neighbors import order_by_group

PER_ATOM = ("pos", "atomic_numbers", "tags", "fixed", "forces")
NOT_LABELS = {"cell", "pbc", "natoms", "graphs", "candidates", *PER_ATOM}
ELEMENTS = 120  # rows of the published networks' embedding
_EMPTY = Batch()  # copied: to make one takes as long as all of collate, and Batch.from_data_list ten times that


def collate(items: Sequence[Mapping | Data]) -> Batch:
    """One batch from structures that all carry ``graphs``, or all ``candidates`` (edges as of ``a2a_edges``,
    GraphConfig) from which to cut them now, in one pass and with the same result.

    Structures are dicts or ``Data``, of numpy arrays or tensors. ``ValueError``: there are no structures, an element
    is unknown, or a structure has no graphs. Returns a ``Batch`` of B structures with N atoms together:
        pos (N, 3) float32 Å, atomic_numbers (N,), tags (N,), fixed (N,) and forces (N, 3) where the first structure has
            them; batch (N,) index of the structure of each atom, ascending; natoms (B,); ptr (B + 1,) first atoms.
        cell (B, 3, 3) float64 Å, rows are lattice vectors; numbers of a structure (energy, id, dataset_index …) (B,),
            float32 or int64; labels of shape (1, …), as PyG's data sets have them, (B, …).
        atoms_by_set (N,), edges_by_set (E,): with ``dataset_index``, the atoms and main edges in the order of its
            values, and ..._counts, how many there are of each up to the largest (plain integers).
        <graph>_edge_index (2, E) source and target, <graph>_offset (E, 3) float64 cells, for the four graphs.
        <graph>_slot (E,), <graph>_width: place of each edge in the table (atom, rank) and its width; main_reverse (E,);
            a2a_pair, pair_source, pair_slot, pair_width; ae_same, qin_back, qout_same, quad_same_out, quad_same_in:
            exceptions (``indices``), all int64, widths plain integers.
    """
    if not items:
        raise ValueError("cannot make a batch of no structures")
    given = "candidates" if "candidates" in items[0] else "graphs"
    for item in items:
        if given not in item:
            raise ValueError(f"structure {item.get('id', '?')} has no {given}: add them with AddGraphs or build_graphs")
    natoms = np.array([len(item["pos"]) for item in items])
    arrays: dict[str, np.ndarray | int] = {
        "natoms": natoms,
        "batch": np.repeat(np.arange(len(items)), natoms),
        "ptr": np.concatenate([[0], np.cumsum(natoms)]),
        "cell": np.array([np.asarray(item["cell"]) for item in items], dtype=np.float64),
    }
    first = dict(items[0].items())
    for key in PER_ATOM:
        if key in first:
            arrays[key] = _standard(np.concatenate([np.asarray(item[key]) for item in items]))
    numbers = arrays["atomic_numbers"]
    if numbers.min() < 1 or numbers.max() > ELEMENTS:  # here, as the model must not ask a GPU
        raise ValueError(f"atomic numbers must lie between 1 and {ELEMENTS}")
    for key, value in first.items():
        if key in NOT_LABELS or isinstance(value, (str, Mapping, tuple, list)):
            continue
        shape = np.shape(value)
        if not shape or shape[0] == 1:
            values = [np.asarray(item[key]) for item in items]
            arrays[key] = _standard(np.concatenate(values) if shape else np.array(values))
    of_each = [item[given] for item in items]
    joined = _join(of_each, natoms) if given == "graphs" else cut_graphs(items, *zip(*of_each))
    for name in GRAPHS:
        arrays[f"{name}_edge_index"] = joined[f"{name}_edge_index"]
        arrays[f"{name}_offset"] = joined[f"{name}_offset"].astype(np.float64, copy=False)
    arrays.update(_slots(joined))
    if "dataset_index" in arrays:
        owner = arrays["dataset_index"][arrays["batch"]]
        for key, of in (("atoms_by_set", owner), ("edges_by_set", owner.take(arrays["main_edge_index"][1]))):
            arrays[key], arrays[f"{key}_counts"] = order_by_group(of), np.bincount(of).tolist()
    batch = copy.copy(_EMPTY)
    # written to directly, as Structure.of does: by attributes it takes a quarter of collate
    mapping = batch._store._mapping
    for key, value in arrays.items():
        mapping[key] = torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value
    batch._num_graphs = len(items)
    return batch


def _standard(values: np.ndarray) -> np.ndarray:
    """float32, int64 or bool."""
    if values.dtype.kind == "f":
        return values.astype(np.float32, copy=False)
    return values.astype(bool if values.dtype.kind == "b" else np.int64, copy=False)


# What the rows of an index array number: atoms, or the edges of a graph.
_NUMBERED = {**{f"{name}_edge_index": ("atom", "atom") for name in GRAPHS}, "main_reverse": ("main",),
             "a2a_pair": ("pair",), "pair_index": ("atom", "atom"), "ae_same": ("main", "a2ee2a"),
             "qin_back": ("qint", "main"), "qout_same": ("qint", "main"), "quad_same": ("qint", "main", "main")}


def _join(graphs: list[dict], natoms: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of ``build_graphs`` for the batch, atoms and edges numbered on: int64 (offsets float64)."""
    counts = {name: np.array([len(g[f"{name}_rank"]) for g in graphs]) for name in ("main", "a2ee2a", "qint", "pair")}
    first = {name: np.cumsum(count) - count for name, count in {**counts, "atom": natoms}.items()}
    out = {}
    for key, value in graphs[0].items():
        if key not in _NUMBERED:
            # the offsets become float64 here, in the same copy
            out[key] = np.concatenate([g[key] for g in graphs], dtype=np.float64 if value.ndim == 2 else np.int64)
            continue
        joined = np.concatenate([g[key] for g in graphs], axis=-1, dtype=np.int64)
        sizes = [g[key].shape[-1] for g in graphs]
        rows = joined if joined.ndim == 2 else joined[None]
        shift: dict[str, np.ndarray] = {}
        for row, what in zip(rows, _NUMBERED[key]):
            if what not in shift:
                shift[what] = np.repeat(first[what], sizes)
            row += shift[what]
        out[key] = joined
    return out


def _slots(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray | int]:
    """Slots, widths and exceptions of the batch.

    Exceptions are flat positions in the tables (atom, main rank, other rank) and (qint edge, main rank).
    """
    out: dict[str, np.ndarray | int] = {"main_reverse": arrays["main_reverse"], "a2a_pair": arrays["a2a_pair"]}
    out["pair_source"], pair_target = arrays["pair_index"]
    targets = {name: arrays[f"{name}_edge_index"][1] for name in ("main", "a2ee2a", "qint")} | {"pair": pair_target}
    for name, target in targets.items():
        rank = arrays[f"{name}_rank"]
        out[f"{name}_width"] = width = int(rank.max(initial=0)) + 1
        out[f"{name}_slot"] = target * width + rank
    main_rank, ae_rank, qint_rank = (arrays[f"{name}_rank"] for name in ("main", "a2ee2a", "qint"))
    main_e, ae_e = arrays["ae_same"]
    out["ae_same"] = out["main_slot"].take(main_e) * out["a2ee2a_width"] + ae_rank.take(ae_e)
    p, i = arrays["qin_back"]
    out["qin_back"] = p * out["main_width"] + main_rank.take(i)
    p, j = arrays["qout_same"]
    out["qout_same"] = out["main_slot"].take(j) * out["qint_width"] + qint_rank.take(p)
    p, j, i = arrays["quad_same"]
    out["quad_same_out"] = out["main_slot"].take(j) * out["qint_width"] + qint_rank.take(p)
    out["quad_same_in"] = p * out["main_width"] + main_rank.take(i)
    return out
