"""From structures with graphs to one batch of tensors.

Atoms of all structures are concatenated and the edges renumbered. The model works on slot tables:
row ``target * width + rank``, where ``width`` is the largest number of edges at one atom in the
batch; empty rows are zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .build import GRAPHS, GraphConfig, a2a_edges, derive_graphs

PER_ATOM = ("pos", "atomic_numbers", "tags", "fixed", "forces")
NOT_LABELS = {"cell", "pbc", "natoms", "graphs", *PER_ATOM}


class GraphCache:
    """Structures with their graphs, each built when first asked for and then kept.

    ``cache[i]`` is the structure dict with the key ``graphs``. With ``edge_dropout`` the candidate
    edges are kept and the graphs are cut from them anew at every access (``rng`` may be replaced).
    """

    def __init__(self, structures: Sequence[dict], config: GraphConfig, edge_dropout: float = 0.0, rng=None):
        self.structures, self.config = structures, config
        self.edge_dropout, self.rng = edge_dropout, rng
        self._kept: dict[int, object] = {}

    def __len__(self) -> int:
        return len(self.structures)

    def __getitem__(self, index: int) -> dict:
        structure = self.structures[index]
        if index not in self._kept:
            candidates = a2a_edges(structure, self.config)
            self._kept[index] = candidates if self.edge_dropout else derive_graphs(structure, candidates, self.config)
        graphs = self._kept[index]
        if self.edge_dropout:
            graphs = derive_graphs(structure, graphs, self.config, edge_dropout=self.edge_dropout, rng=self.rng)
        return {**structure, "graphs": graphs}


def collate(items: Sequence[dict]) -> dict[str, torch.Tensor | int]:
    """One batch from structures that carry ``graphs``.

    Returns tensors pos (N, 3) float32, atomic_numbers, tags, fixed (N,), batch (N,), natoms (B,),
    cell (B, 3, 3) float64, labels, for each graph ``<graph>_edge_index`` (2, E) and
    ``<graph>_offset`` (E, 3) float64, the slot and exception indices used by the model, and the
    integer widths of the slot tables.
    """
    if not items:
        raise ValueError("cannot make a batch of no structures")
    natoms = np.array([len(item["pos"]) for item in items])
    first_atom = np.r_[0, np.cumsum(natoms)[:-1]]
    batch = {
        "natoms": torch.from_numpy(natoms),
        "batch": torch.from_numpy(np.repeat(np.arange(len(items)), natoms)),
        "cell": torch.from_numpy(np.stack([np.asarray(item["cell"], dtype=np.float64) for item in items])),
    }
    for key in PER_ATOM:
        if key in items[0]:
            values = np.concatenate([np.asarray(item[key]) for item in items])
            batch[key] = torch.from_numpy(np.ascontiguousarray(values.astype(_dtype(values))))
    for key, value in items[0].items():
        if key not in NOT_LABELS and np.ndim(value) == 0 and not isinstance(value, str):
            values = np.array([item[key] for item in items])
            batch[key] = torch.from_numpy(values.astype(_dtype(values)))
    batch.update(_collate_graphs([item["graphs"] for item in items], first_atom, int(natoms.sum())))
    return batch


def _dtype(values: np.ndarray):
    if values.dtype.kind == "f":
        return np.float32
    return bool if values.dtype.kind == "b" else np.int64


def _collate_graphs(graphs: list[dict], first_atom: np.ndarray, natoms: int) -> dict:
    """Concatenate and renumber; ``first_atom`` (B,) is the number of each structure's first atom."""
    first = {name: _starts(graphs, f"{name}_edge_index") for name in GRAPHS}
    first["pair"] = _starts(graphs, "pair_index")

    def join(key, *starts):
        parts = [g[key] + np.array(s).reshape(-1, *[1] * (g[key].ndim - 1)) for g, *s in zip(graphs, *starts)]
        return np.concatenate(parts, axis=-1)

    out: dict[str, np.ndarray | int] = {}
    for name in GRAPHS:
        out[f"{name}_edge_index"] = join(f"{name}_edge_index", first_atom)
        out[f"{name}_offset"] = np.concatenate([g[f"{name}_offset"] for g in graphs]).astype(np.float64)
    out["main_reverse"] = join("main_reverse", first["main"])
    out["a2a_pair"] = join("a2a_pair", first["pair"])
    pair_source, pair_target = join("pair_index", first_atom)
    out["pair_source"] = pair_source

    targets = {"main": out["main_edge_index"][1], "a2ee2a": out["a2ee2a_edge_index"][1],
               "qint": out["qint_edge_index"][1], "pair": pair_target}
    width = {}
    for name, target in targets.items():
        rank = np.concatenate([g[f"{name}_rank"] for g in graphs])
        width[name] = int(rank.max(initial=0)) + 1
        out[f"{name}_slot"] = target * width[name] + rank
        out[f"{name}_width"] = width[name]

    # Exceptions as flat positions in the tables (atom, main rank, other rank) and (qint edge, rank).
    rank = {name: out[f"{name}_slot"] % width[name] for name in ("main", "a2ee2a", "qint")}
    main_e, ae_e = join("ae_same", first["main"], first["a2ee2a"])
    out["ae_same"] = out["main_slot"][main_e] * width["a2ee2a"] + rank["a2ee2a"][ae_e]
    p, i = join("qin_back", first["qint"], first["main"])
    out["qin_back"] = p * width["main"] + rank["main"][i]
    p, j = join("qout_same", first["qint"], first["main"])
    out["qout_same"] = out["main_slot"][j] * width["qint"] + rank["qint"][p]
    p, j, i = join("quad_same", first["qint"], first["main"], first["main"])
    out["quad_same_out"] = out["main_slot"][j] * width["qint"] + rank["qint"][p]
    out["quad_same_in"] = p * width["main"] + rank["main"][i]
    return {k: torch.from_numpy(np.ascontiguousarray(v)) if isinstance(v, np.ndarray) else v for k, v in out.items()}


def _starts(graphs: list[dict], key: str) -> np.ndarray:
    counts = np.array([g[key].shape[1] for g in graphs])
    return np.r_[0, np.cumsum(counts)[:-1]]
