"""Training, validation and test part of a user's data, without the same structure (or group) in two of them."""

from __future__ import annotations

import numpy as np

from jmp_lib.data.splits import Split, shuffled
from jmp_lib.own.dataset import OwnData
from jmp_lib.own.findings import formula
from jmp_lib.strict import nearest

KINDS = ("random", "group", "composition", "given")


def split_own(data: OwnData, kind: str = "random", test: float = 0.2, val: float = 0.1, seed: int = 42) -> Split:
    """Rows of the three parts.

    random: copies of a structure stay together; group: whole groups of ``group_key``; composition: whole reduced
    formulas; given: the label ``split`` of each structure (train, val, test).  Raises ``ValueError`` when a part would be
    empty, and when a group or a given part puts copies of one structure into two parts.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown split {kind!r}; {nearest(kind, KINDS)}".replace("key", "kind"))
    if not (0 < test < 1 and 0 < val < 1 and test + val < 1):
        raise ValueError(f"test_fraction {test} and val_fraction {val} must be above 0 and together below 1")
    split = _given(data) if kind == "given" else _by_groups(units_of(data, kind), test, val, seed)
    _check_leak(split, data.copies, kind)
    return split


def units_of(data: OwnData, kind: str) -> np.ndarray:
    """What stays together, and what the bootstrap draws: a text or number for each structure."""
    if kind == "group":
        if data.groups is None:
            raise ValueError("split = \"group\" needs group_key: the name of a label that says which structures belong together")
        return data.groups
    if kind == "composition":
        return np.array([formula(s["atomic_numbers"]) for s in data.structures])
    if kind == "given" and data.groups is not None:
        return data.groups
    return data.copies


def _by_groups(groups: np.ndarray, test: float, val: float, seed: int) -> Split:
    names, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = shuffled(len(names), seed)
    before = np.concatenate([[0], np.cumsum(sizes[order])])[:-1] / len(groups)
    part = np.full(len(names), 2)
    part[order[before < test + val]] = 1
    part[order[before < test]] = 0
    rows = shuffled(len(groups), seed)
    found = [rows[part[index][rows] == p] for p in (2, 1, 0)]
    if min(map(len, found)) == 0:
        raise ValueError(f"{len(names)} groups in {len(groups)} structures are too few for a training, a validation and a "
                         "test part; take split = \"random\", or other fractions")
    return Split(*found)


def _given(data: OwnData) -> Split:
    if data.given is None:
        raise ValueError("split = \"given\" needs a label 'split' of every structure: train, val or test")
    bad = np.flatnonzero(~np.isin(data.given, ("train", "val", "test")))
    if bad.size:
        raise ValueError(f"structure {bad[0]}: its split is {data.given[bad[0]]!r}; write train, val or test")
    found = [np.flatnonzero(data.given == name) for name in ("train", "val", "test")]
    if min(map(len, found)) == 0:
        raise ValueError("the given split leaves train, val or test empty")
    return Split(*found)


def _check_leak(split: Split, keys: np.ndarray, kind: str) -> None:
    for one, other, names in ((split.train, split.test, "train and test"), (split.train, split.val, "train and val"),
                              (split.val, split.test, "val and test")):
        both = np.flatnonzero(np.isin(keys[one], keys[other]))
        if both.size:
            row = one[both[0]]
            twin = other[np.flatnonzero(keys[other] == keys[row])[0]]
            raise ValueError(f"structures {row} and {twin} are the same but lie in {names} (split = {kind!r}), so the test "
                             "would not be honest: remove one of them")
