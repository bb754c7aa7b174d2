"""Training, validation and test part of a user's data, without the same structure (or group) in two of them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from ase.data import chemical_symbols
from ase.formula import Formula

from jmp_lib.data.splits import Split, group_parts
from jmp_lib.own.data import OwnData
from jmp_lib.strict import nearest

KINDS = ("random", "group", "composition", "given")
PARTS = ("train", "val", "test")


def split_own(data: OwnData, kind: str = "random", seed: int = 42) -> Split:
    """Rows of the three parts; a fifth for the test, a tenth for validation.

    random: copies of a structure stay together; group: whole groups of ``group_key``; composition: whole reduced
    formulas; given: the label ``split`` of each structure.  ``ValueError``: an empty part, or copies in two parts.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown split {kind!r}; {nearest(kind, KINDS)}".replace("key", "kind"))
    split = _given(data) if kind == "given" else Split(*group_parts(units_of(data, kind), (0.2, 0.1), seed)[::-1])
    _check_leak(split, data.copies, kind)
    return split


def units_of(data: OwnData, kind: str) -> np.ndarray:
    """What stays together, and what the bootstrap draws: a text or number for each structure."""
    if kind == "group" and data.groups is None:
        raise ValueError("split = \"group\" needs group_key: the name of a label that says which structures belong together")
    if kind == "composition":
        return np.array([formula(s["atomic_numbers"]) for s in data.structures])
    return data.copies if kind == "random" or data.groups is None else data.groups


def formula(atomic_numbers) -> str:
    """Reduced formula, elements in Hill order."""
    return Formula.from_list(np.asarray(chemical_symbols)[np.asarray(atomic_numbers)]).reduce()[0].format("hill")


def _given(data: OwnData) -> Split:
    if data.given is None:
        raise ValueError("split = \"given\" needs a label 'split' of every structure: train, val or test")
    bad = np.flatnonzero(~np.isin(data.given, PARTS))
    if bad.size:
        raise ValueError(f"structure {bad[0]}: its split is {str(data.given[bad[0]])!r}; write train, val or test")
    found = [np.flatnonzero(data.given == name) for name in PARTS]
    if min(map(len, found)) == 0:
        raise ValueError("the given split leaves train, val or test empty")
    return Split(*found)


def _check_leak(split: Split, copies: np.ndarray, kind: str) -> None:
    for one, other in combinations(PARTS, 2):
        rows, others = getattr(split, one), getattr(split, other)
        both = rows[np.isin(copies[rows], copies[others])]
        if both.size:
            twin = others[copies[others] == copies[both[0]]][0]
            raise ValueError(f"structures {both[0]} and {twin} are the same but lie in {one} and {other} (split = {kind!r}), so "
                             "the test would not be honest: remove one of them")
