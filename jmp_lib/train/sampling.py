"""Which structures make up update number k: temperature sampling of several sets, plain shuffling of one.

The order is a function of (seed, epoch) alone, so the position of a run is just its update number: a
resumed run continues with exactly the batches that an uninterrupted one would see.

Up to LISTED draws per epoch the order is a shuffled list.  Above (120 million structures) a keyed permutation
computes single places of the order, in no memory at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LISTED = 10_000_000  # draws per epoch up to which the order is kept as a list (80 MB)


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
    cyclically) in an order shuffled by ``numpy.random.default_rng([seed, epoch])``, or above LISTED draws by
    ``keyed_permutation``.
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
        drawn = _epoch_order(total, self.seed, epoch)[places] if total <= LISTED else \
            keyed_permutation(places, total, self.seed, epoch)
        ends = np.cumsum(self.draws)
        pairs = []
        for draw in drawn:
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


def keyed_permutation(places: np.ndarray, count: int, seed: int, epoch: int) -> np.ndarray:
    """Where ``places`` (of 0 to count-1) go under a permutation chosen by (seed, epoch).

    A Feistel network permutes the numbers of 2h bits, the smallest such range that holds ``count``: in each of 8
    rounds (left, right) becomes (right, left xor mixed(right, key)).  A number that lands outside 0 to count-1 is
    put through again until it lands inside ("cycle walking"), on average fewer than 4 times.
    """
    half = np.uint64(max(1, (max(count - 1, 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    keys = np.random.default_rng([seed, epoch]).integers(0, 2**64, 8, dtype=np.uint64)
    found = np.asarray(places).astype(np.uint64)
    outside = np.arange(len(found))
    while len(outside):
        left, right = found[outside] >> half, found[outside] & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        found[outside] = (left << half) | right
        outside = outside[found[outside] >= count]
    return found.astype(np.int64)


def _mixed(x: np.ndarray) -> np.ndarray:
    """64 bits in which every bit depends on every bit of ``x`` (the finaliser of SplitMix64, Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
