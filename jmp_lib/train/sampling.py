"""Which structures make up update number k: temperature sampling of several sets, plain shuffling of one.

The order is a function of (seed, epoch) alone, so the position of a run is just its update number: a
resumed run continues with exactly the batches that an uninterrupted one would see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


def temperature_ratios(sizes: list[int], temperature: float) -> list[float]:
    """Share of each data set, p_i ∝ (n_i / Σn)^(1/T), Σp = 1.  T = 1: by size; T = inf: uniform.

    Raises ``ValueError`` for an empty set.
    """
    if not sizes or min(sizes) < 1:
        raise ValueError(f"every data set needs at least one structure, sizes are {sizes}")
    total = sum(sizes)
    powers = [(n / total) ** (1.0 / temperature) for n in sizes]
    return [power / sum(powers) for power in powers]


def expanded_sizes(sizes: list[int], ratios: list[float]) -> list[int]:
    """Draws per data set in one epoch: no set is reduced, each is repeated until the ratios hold.

    f_d = e_d / min e with e_d = Σn · ratio_d / n_d, then ⌈n_d f_d⌉.  The order of these operations matters:
    rounding noise decides whether an exact product gains one more draw (997, 84, 22, 105 from
    997, 83, 21, 104 at T = 1), and this order repeats the official counts.
    """
    total = sum(sizes)
    expansion = [total * ratio / n for ratio, n in zip(ratios, sizes)]
    smallest = min(expansion)
    return [math.ceil(n * (e / smallest)) for n, e in zip(sizes, expansion)]


@dataclass(frozen=True)
class Sampler:
    """Batches of (set index, structure index) pairs from one or several data sets.

    Every epoch goes once through all expanded indices (a set of n structures with m > n draws is repeated
    cyclically) in an order shuffled by ``numpy.random.default_rng([seed, epoch])``.
    """

    sizes: tuple[int, ...]
    draws: tuple[int, ...]
    batch_size: int
    seed: int

    @classmethod
    def joint(cls, sizes: list[int], temperature: float, batch_size: int, seed: int,
              sampled: list[bool] | None = None) -> Sampler:
        """Sampler of several sets at a temperature; of those with ``sampled`` false (an ablation) nothing is drawn."""
        kept = [size for size, wanted in zip(sizes, sampled or [True] * len(sizes)) if wanted]
        if not kept:
            raise ValueError("no pre-training set is sampled: set sampled: true for at least one")
        found = iter(expanded_sizes(kept, temperature_ratios(kept, temperature)))
        draws = [next(found) if wanted else 0 for wanted in sampled or [True] * len(sizes)]
        return cls(tuple(sizes), tuple(draws), batch_size, seed)

    @classmethod
    def single(cls, size: int, batch_size: int, seed: int) -> Sampler:
        """Sampler of one set: every structure once per epoch."""
        if size < 1:
            raise ValueError("the training part is empty: raise the size limits of the profile")
        return cls((size,), (size,), batch_size, seed)

    @property
    def batches_per_epoch(self) -> int:
        """Number of updates per epoch; the last batch of an epoch may be smaller."""
        return math.ceil(sum(self.draws) / self.batch_size)

    def batch(self, step: int) -> list[tuple[int, int]]:
        """The (set index, structure index) pairs of update number ``step``, from 0."""
        epoch, position = divmod(step, self.batches_per_epoch)
        total = sum(self.draws)
        places = np.arange(position * self.batch_size, min((position + 1) * self.batch_size, total))
        drawn, ends = _epoch_order(total, self.seed, epoch)[places].astype(np.int64), np.cumsum(self.draws)
        which = np.searchsorted(ends, drawn, side="right")
        within = (drawn - (ends - self.draws)[which]) % np.array(self.sizes)[which]
        return list(zip(which.tolist(), within.tolist()))


@lru_cache(maxsize=1)
def _epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Permutation of ``count`` draws (480 MB for 120 million); kept, since consecutive updates share it."""
    order = np.arange(count, dtype=np.uint32)
    np.random.default_rng([seed, epoch]).shuffle(order)
    return order
