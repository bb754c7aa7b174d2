"""Splits into train, validation and test: the rules of the official code, on sizes alone, and those of the mini data.

Every random order is numpy's legacy in-place shuffle, ``RandomState(42).shuffle(arange(n))``: another generator
gives another split. Counts of all tasks: facts/tasks.csv.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SEED = 42
MATBENCH_FOLD_SEED = 18012019
MATBENCH_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers int64 of the three parts, in the order the rule gives them."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray

    @property
    def counts(self) -> tuple[int, int, int]:
        """Number of train, validation and test structures."""
        return len(self.train), len(self.val), len(self.test)

    @property
    def sha256(self) -> str:
        """Hash of the three lists of rows, one after the other, each with its length."""
        digest = hashlib.sha256()
        for rows in (self.train, self.val, self.test):
            digest.update(f"{len(rows)};".encode() + np.ascontiguousarray(rows, dtype="<i8").tobytes())
        return digest.hexdigest()

    def capped(self, train: int | None = None, val: int | None = None, test: int | None = None) -> Split:
        """At most so many rows of each part (None: all), the first of each, so that a larger cap adds rows."""
        return Split(self.train[:train], self.val[:val], self.test[:test])


def shuffled(n: int, seed: int = SEED) -> np.ndarray:
    """0..n-1 in the order of numpy's legacy shuffle, int64 (n,)."""
    order = np.arange(n, dtype=np.int64)
    np.random.RandomState(seed).shuffle(order)
    return order


def consecutive(n: int, n_train: int, n_val: int, n_test: int | None = None) -> Split:
    """Train, validation, test one after the other from the shuffled order; test None: all the rest.

    Raises ``ValueError`` when ``n`` structures are not enough to leave a test part.
    """
    n_test = n - n_train - n_val if n_test is None else n_test
    if min(n_train, n_val, n_test) < 1 or n_train + n_val + n_test > n:
        raise ValueError(f"{n} structures are too few for {n_train} train, "
                         f"{n_val} validation and at least 1 test structure")
    order = shuffled(n)
    return Split(order[:n_train], order[n_train : n_train + n_val], order[n_train + n_val : n_train + n_val + n_test])


def qm9(n: int) -> Split:
    """QM9: all but 20,000 train, then 10,000 validation, 10,000 test."""
    return consecutive(n, n - 20_000, 10_000)


def rmd17(n: int, n_train: int = 950, n_val: int = 50) -> Split:
    """rMD17: 950 train, 50 validation, all the rest test (the five shipped splits are not used)."""
    return consecutive(n, n_train, n_val)


def md22(n: int, pool: int) -> Split:
    """MD22: a pool of sGDML's size, its last 5 % validation, the rest of it train; all frames outside it test."""
    n_val = pool * 5 // 100
    return consecutive(n, pool - n_val, n_val)


def eighty_ten_ten(n: int) -> Split:
    """SPICE and QMOF: int(0.8 n) train, the remainder validation, int(0.1 n) test."""
    n_train, n_test = int(0.8 * n), int(0.1 * n)
    return consecutive(n, n_train, n - n_train - n_test, n_test)


def matbench_fold(n: int, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (train and validation, test) of official MatBench v0.1 fold 0..4, each sorted: scikit-learn's ``KFold(5,
    shuffle=True, random_state=18012019)``."""
    if fold not in range(MATBENCH_FOLDS):
        raise ValueError(f"there is no fold {fold}: the MatBench folds are 0 to {MATBENCH_FOLDS - 1}")
    if n < MATBENCH_FOLDS:
        raise ValueError(f"{n} structures are too few for {MATBENCH_FOLDS} folds")
    is_test = np.zeros(n, dtype=bool)
    is_test[np.array_split(shuffled(n, MATBENCH_FOLD_SEED), MATBENCH_FOLDS)[fold]] = True
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def matbench(n: int, fold: int = 0, train: float = 0.9) -> Split:
    """MatBench: the official fold's test part; of the rest, seed-42 shuffled, int(``train`` m) train,
    then validation."""
    rest, test = matbench_fold(n, fold)
    rest = rest[shuffled(len(rest))]
    n_train = int(train * len(rest))
    return Split(rest[:n_train], rest[n_train:], test)


def group_parts(group: np.ndarray, fractions: Sequence[float], seed: int = SEED) -> list[np.ndarray]:
    """Rows of a part for each of ``fractions`` and of the rest, no group in two of them; each part comes shuffled.

    Groups in shuffled order go to the first part until it holds its fraction of the rows, then to the second, and so
    on. Raises ``ValueError`` when a part stays empty.
    """
    names, index, sizes = np.unique(np.asarray(group), return_inverse=True, return_counts=True)
    order = shuffled(len(names), seed)
    before = np.concatenate([[0], np.cumsum(sizes[order])])[:-1]
    part = np.empty(len(names), dtype=int)
    part[order] = np.searchsorted(np.cumsum(fractions) * len(index), before, side="right")
    rows = shuffled(len(index), seed)
    parts = [rows[part[index][rows] == number] for number in range(len(fractions) + 1)]
    if min(map(len, parts)) == 0:
        shares = ", ".join(f"{fraction:.0%}" for fraction in fractions)
        raise ValueError(f"{len(names)} groups in {len(index)} structures cannot be split into {shares} and the rest "
                         "without a group in two parts")
    return parts
