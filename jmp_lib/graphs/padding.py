"""Batches padded to a few shapes, so that a training step can be recorded once for each shape and replayed (on a GPU).

Padding comes last: structures of atoms at the origin, and edges of padding, each from such an atom to its own image
100 Å away. That lies beyond every cutoff, so radial bases and all sums of padding are zero, while distances,
directions and their derivatives stay finite. No edge, slot or exception joins padding with a true atom; losses leave
it out by ``real_structures`` and ``real_atoms``, which the padded batch brings along.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch

from .batch import PER_ATOM
from .build import GRAPHS

# structures, atoms, edges of the four graphs, pairs, widths of the slot tables, lengths of the lists of exceptions,
# and in pre-training the atoms and edges of each set
Bucket = dict[str, int]
TABLES = ("main", "a2ee2a", "qint", "pair")
EXCEPTIONS = ("ae_same", "qin_back", "qout_same", "quad_same_out")
SPARE = {"structures": 1, "atoms": 1, "pair": 1, "qint": 1, "main": 2}  # at least so many of a padded batch are padding
BY_SET = {"atoms_by_set": "atoms", "edges_by_set": "main"}  # rows for heads, and what they are rows of
DEAR = ("structures", "atoms", "main", "main_width")  # numbers that make a step dear: the least of them that will do
ROOM = 1.05  # of the other numbers, and of all in the last bucket
CELL = (60.0, 64.0, 48.0)  # Å, of padding; its diagonal is 100 Å long and parallel to no axis


def shape(batch: Batch) -> Bucket:
    """The numbers that decide the shapes of all arrays of a step."""
    return {"structures": len(batch["natoms"]), "atoms": len(batch["batch"]), "pair": len(batch["pair_source"]),
            **{name: batch[f"{name}_edge_index"].shape[1] for name in GRAPHS},
            **{f"{name}_width": batch[f"{name}_width"] for name in TABLES},
            **{name: len(batch[name]) for name in EXCEPTIONS},
            **{f"{name} {k}": rows for name in BY_SET if name in batch
               for k, rows in enumerate(batch[f"{name}_counts"])}}  # fmt: skip


def in_edges(of: dict) -> int:
    """Memory that a shape takes, in main edges: those, and the tables of quadruplets. 100 places (main edge, qint
    edge) at atoms count as one edge, and 500 places (qint edge, main edge at its source). By what the backward pass
    keeps it is 106 and 460 in JMP-S, 75 and 340 in the small network of mini. Tables are as wide as the widest atom
    of a batch needs."""
    return of["main"] + of["main_width"] * (5 * of["atoms"] * of["qint_width"] + of["qint"]) // 500


def cost(of: dict) -> float | np.ndarray:
    """What a step on a shape (numbers, or arrays of them) costs: about how many numbers a narrow network (profile
    mini) forms, in each block, over 16: rows of edges and atoms, rows of heads by sets, and tables (atoms · widths).
    Of wider networks main edges take a larger share."""
    n, dm, da, dq, dp = of["atoms"], *(of[f"{name}_width"] for name in TABLES)
    rows = 250 * of["main"] + 100 * n + 10 * (of["a2ee2a"] + of["qint"] + of["a2a"])
    heads = sum({"atoms": 6, "edges": 12}[key[:5]] * value for key, value in of.items() if "_by_set " in key)
    return rows + heads + n * (dm * (dm + da + 10 * dq) + dp) + 2 * of["qint"] * dm


def buckets(shapes: Iterable[Bucket], count: int) -> list[Bucket]:
    """At most ``count`` buckets, cheapest first, in which ``shapes`` fit at the least mean of (cost in the bucket
    / own cost), and one for what will come: a little larger than the largest of every number; in pre-training also
    with heads for all rows.

    Shapes in the order of their cost are cut in so many runs by dynamic programming; a bucket is the largest of
    every number in its run, with ROOM where that is cheap. Rows of heads, which vary with the mix of sets, are the
    largest of all shapes.
    """
    shapes = sorted(shapes, key=cost)
    keys, own = list(dict.fromkeys(key for of in shapes for key in of)), np.array([cost(of) for of in shapes])
    rows = np.array([[of.get(key, 0) + SPARE.get(key, 0) for key in keys] for of in shapes])
    all_rows = np.array([[of.get(BY_SET.get(key.split()[0]), np.inf) for key in keys] for of in shapes])
    by_set = np.isfinite(all_rows).all(0)
    rows[:, by_set] = np.minimum(all_rows[:, by_set], rows[:, by_set].max(0))
    room, n = np.where(np.isin(keys, DEAR), 1.0, ROOM), len(rows)
    spent = np.full((n, n), np.inf)  # of the run i, ..., j in one bucket
    for i in range(n):
        spent[i, i:] = cost(dict(zip(keys, np.maximum.accumulate(rows[i:]).T))) * np.cumsum(1 / own[i:])
    least, starts = spent[0], []  # of all shapes up to j, and where the last run begins
    for _ in range(min(count, n) - 1):
        totals = np.concatenate([[0.0], least[:-1]])[:, None] + spent
        starts.append(totals.argmin(0))
        least = totals.min(0)
    found, end = [], n
    for start in [*reversed(starts), np.zeros(n, int)]:
        if end:
            first = int(start[end - 1])
            found.append(rows[first:end].max(0) * room)
            end = first
    made = [dict(zip(keys, numbers.astype(int).tolist())) for numbers in (*found, rows.max(0) * ROOM)]
    made[-1]["main"] += made[-1]["main"] % 2
    if by_set.any():
        made.append({key: made[-1][BY_SET.get(key.split()[0], key)] for key in keys})
    return sorted(made, key=cost)


def fits(own: Bucket, bucket: Bucket) -> bool:
    """Whether a batch of the shape ``own`` can be padded to ``bucket``; every padding structure gets an atom."""
    return (own.keys() <= bucket.keys() and all(own.get(key, 0) + SPARE.get(key, 0) <= bucket[key] for key in bucket)
            and bucket["structures"] - own["structures"] <= bucket["atoms"] - own["atoms"])


def pad(batch: Batch, bucket: Bucket) -> Batch:
    """``batch`` (which ``fits``) with padding up to ``bucket``; labels of padding are 0.

    New are real_structures (B,) and real_atoms (N,), false for padding.
    """
    own = dict.fromkeys(bucket, 0) | shape(batch)
    spare = {key: bucket[key] - own[key] for key in own}
    n, structures = own["atoms"], own["structures"]
    width = {name: (own[f"{name}_width"], bucket[f"{name}_width"]) for name in TABLES}
    padded = copy.copy(batch)
    new = padded._store._mapping
    for key, value in list(new.items()):
        if key in PER_ATOM:
            new[key] = _and(value, value.new_full((spare["atoms"], *value.shape[1:]), key == "atomic_numbers"))
        elif torch.is_tensor(value) and key not in _STRUCTURAL:
            new[key] = _and(value, value.new_zeros(spare["structures"], *value.shape[1:]))  # labels, ids
    of_atom = structures + torch.arange(spare["atoms"]).clamp(max=spare["structures"] - 1)
    new["batch"] = _and(batch["batch"], of_atom)
    new["natoms"] = torch.bincount(new["batch"])
    new["ptr"] = _and(torch.zeros(1, dtype=torch.int64), new["natoms"].cumsum(0))
    new["cell"] = _and(batch["cell"], torch.diag(batch["cell"].new_tensor(CELL)).expand(spare["structures"], 3, 3))
    new["real_structures"] = torch.arange(bucket["structures"]) < structures
    new["real_atoms"] = torch.arange(bucket["atoms"]) < n

    def slots(name: str, number: Tensor, atoms: Tensor, ranks: Tensor) -> None:
        """Slots in the wider table, and those of padding: so few share one that sums are not held up there."""
        old, wide = width[name]
        new[f"{name}_width"] = wide
        new[f"{name}_slot"] = _and(_widened(number, old, wide), atoms * wide + ranks % wide)

    for name in GRAPHS:  # of padding, two and two an edge and its reverse
        k = torch.arange(spare[name])
        atoms = n + k // 2 % spare["atoms"]
        new[f"{name}_edge_index"] = torch.cat([batch[f"{name}_edge_index"], atoms.expand(2, -1)], 1)
        new[f"{name}_offset"] = _and(batch[f"{name}_offset"], (1.0 - 2.0 * (k % 2)).double().unsqueeze(1).expand(-1, 3))
        if name in TABLES:
            slots(name, batch[f"{name}_slot"], atoms, k // (2 * spare["atoms"]) * 2 + k % 2)
        if name == "main":
            new["main_reverse"] = _and(batch["main_reverse"], own["main"] + (k ^ 1))
        if name == "a2a":
            new["a2a_pair"] = _and(batch["a2a_pair"], own["pair"] + k % spare["pair"])
    k = torch.arange(spare["pair"])
    new["pair_source"] = _and(batch["pair_source"], n + k % spare["atoms"])
    slots("pair", batch["pair_slot"], n + k % spare["atoms"], k // spare["atoms"])

    (dm, wide), at_atom, at_qint = width["main"], n * width["main"][1], own["qint"] * width["main"][1]
    # (atom, main rank, other rank)
    for key, name in (("ae_same", "a2ee2a"), ("qout_same", "qint"), ("quad_same_out", "qint")):
        old, other = width[name]
        flat = _widened(batch[key] // old, dm, wide) * other + batch[key] % old
        new[key] = _and(flat, flat.new_full((spare[key],), at_atom * other))
    for key, of in (("qin_back", "qin_back"), ("quad_same_in", "quad_same_out")):  # (qint edge, main rank)
        flat = _widened(batch[key], dm, wide)
        new[key] = _and(flat, flat.new_full((spare[of],), at_qint))
    for key, of in BY_SET.items():
        if key in batch:  # with rows of padding behind those of each set
            names = [name for name in bucket if name.startswith(f"{key} ")]
            true = batch[key].split([own[name] for name in names])
            rows = [_and(some, own[of] + torch.arange(spare[name]) % spare[of]) for some, name in zip(true, names)]
            new[key], new[f"{key}_counts"] = torch.cat(rows), [bucket[name] for name in names]
    padded._num_graphs = bucket["structures"]
    return padded


_STRUCTURAL = {"natoms", "batch", "ptr", "cell", "main_reverse", "a2a_pair", "pair_source", "pair_slot", "quad_same_in",
               *EXCEPTIONS, *BY_SET,
               *(f"{name}_{what}" for name in GRAPHS for what in ("edge_index", "offset", "slot"))}  # fmt: skip


def padded_to_fit(batch: Batch, choice: Sequence[Bucket]) -> tuple[Batch, float | None]:
    """``batch`` in the first bucket of the ``choice`` that it fits, and by which share that makes it dearer; as it
    is, and None, where it fits none."""
    own = shape(batch)
    for bucket in choice:
        if fits(own, bucket):
            return pad(batch, bucket), cost(bucket) / cost(own) - 1
    return batch, None


def _and(values: Tensor, padding: Tensor) -> Tensor:
    return torch.cat([values, padding])


def _widened(slot: Tensor, old: int, wide: int) -> Tensor:
    """Flat places (row, rank) of a table of the width ``old``, in one of the width ``wide``."""
    return slot // old * wide + slot % old
