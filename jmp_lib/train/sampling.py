"""Which structures make up update number k: temperature sampling of several sets, plain shuffling of one.

The order is a function of (seed, epoch) alone, so the position of a run is just its update number: a
resumed run continues with exactly the batches that an uninterrupted one would see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


def temperature_ratios(sizes: list[int], temperature: float) -> list[float]:
    """Share of each data set, p_i ∝ (n_i / Σn)^(1/T), Σp = 1.  T = 1: by size; T = inf: uniform.

    Raises ``ValueError`` for an empty set or a temperature that is not positive.
    """
    if not sizes or min(sizes) < 1:
        raise ValueError(f"every data set needs at least one structure, sizes are {sizes}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
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
    def joint(cls, sizes: list[int], temperature: float, batch_size: int, seed: int) -> Sampler:
        """Sampler of several sets at a temperature."""
        draws = expanded_sizes(sizes, temperature_ratios(sizes, temperature))
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

    def epoch_of(self, step: int) -> int:
        """Epoch (from 0) that update number ``step`` (from 0) belongs to."""
        return step // self.batches_per_epoch

    def batch(self, step: int) -> list[tuple[int, int]]:
        """The (set index, structure index) pairs of update number ``step``, from 0."""
        epoch, position = divmod(step, self.batches_per_epoch)
        order = _epoch_order(sum(self.draws), self.seed, epoch)
        ends = np.cumsum(self.draws)
        pairs = []
        for draw in order[position * self.batch_size:(position + 1) * self.batch_size]:
            which = int(np.searchsorted(ends, draw, side="right"))
            within = int(draw) - (int(ends[which - 1]) if which else 0)
            pairs.append((which, within % self.sizes[which]))
        return pairs


_LAST_ORDER: dict = {}


def _epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Permutation of ``count`` draws; the last one is kept, since consecutive updates share it."""
    key = (count, seed, epoch)
    if key not in _LAST_ORDER:
        _LAST_ORDER.clear()
        _LAST_ORDER[key] = np.random.default_rng([seed, epoch]).permutation(count)
    return _LAST_ORDER[key]
