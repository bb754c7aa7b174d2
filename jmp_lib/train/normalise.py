"""Targets in normalised units, and back: per-element references, mean and standard deviation.

Everything is fitted on the training part alone.  A property y of a structure with atomic numbers Z_i is
trained as (y - Σ_i r[Z_i] - mean) / std; forces are divided by their standard deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

MAX_ELEMENTS = 120


def element_counts(atomic_numbers: Sequence[np.ndarray]) -> np.ndarray:
    """Atoms of every element in every structure: S arrays (N,) -> (S,120), column = atomic number."""
    return np.stack([np.bincount(np.asarray(z), minlength=MAX_ELEMENTS)[:MAX_ELEMENTS] for z in atomic_numbers]).astype(float)


def fit_linear_reference(atomic_numbers: Sequence[np.ndarray], values: np.ndarray) -> tuple[float, ...]:
    """Per-element contributions by least squares without intercept, unit of ``values``.

    Returns one number per atomic number from 0 to 119.  When the compositions do not determine the
    solution, the one of smallest norm is taken; elements that never occur get the mean of the others, so
    that a new element costs a typical and not an absurd amount.  Raises ``ValueError`` on bad values.
    """
    values = np.asarray(values, float)
    if not np.isfinite(values).all():
        raise ValueError(f"cannot fit reference energies: {np.count_nonzero(~np.isfinite(values))} of "
                         f"{values.size} values are not finite; remove those structures")
    counts = element_counts(atomic_numbers)
    present = np.flatnonzero(counts.any(axis=0))
    solution, *_ = np.linalg.lstsq(counts[:, present], values, rcond=1.0e-10)
    reference = np.full(MAX_ELEMENTS, solution.mean())
    reference[present] = solution
    reference[0] = 0.0
    return tuple(float(r) for r in reference)


@dataclass(frozen=True)
class Normaliser:
    """(y - reference - mean) / std for a property; with mean 0 and no reference for forces."""

    mean: float = 0.0
    std: float = 1.0
    reference: tuple[float, ...] | None = None  # per atomic number from 0, unit of y

    def __post_init__(self):
        if not (np.isfinite(self.mean) and np.isfinite(self.std) and self.std > 0):
            raise ValueError(f"normaliser with mean {self.mean} and standard deviation {self.std}: the training "
                             "part must hold at least two different finite values")

    def offset(self, atomic_numbers: np.ndarray) -> float:
        """Reference plus mean of one structure, unit of y."""
        if self.reference is None:
            return self.mean
        return self.mean + float(np.asarray(self.reference)[np.asarray(atomic_numbers)].sum())

    def normalise(self, value, atomic_numbers: np.ndarray):
        """Normalised value(s) of one structure."""
        return (value - self.offset(atomic_numbers)) / self.std

    def denormalise(self, value, atomic_numbers: np.ndarray):
        """The inverse of ``normalise``."""
        return value * self.std + self.offset(atomic_numbers)

    def to_dict(self) -> dict:
        return asdict(self)


def fit_property(atomic_numbers: Sequence[np.ndarray], values: np.ndarray, kind: str = "standard",
                 linear_reference: bool = False, mean: float | None = None, std: float | None = None,
                 reference_values: tuple[float, ...] | None = None) -> Normaliser:
    """Normaliser of a property from the training part.

    kind: ``standard`` (y-mean)/std, ``scale`` y/std, ``none`` y; a given ``mean``, ``std`` or
    ``reference_values`` is used instead of the measured one.
    """
    values = np.asarray(values, float)
    reference = None
    if linear_reference:
        reference = fit_linear_reference(atomic_numbers, values) if reference_values is None else \
            tuple(reference_values) + (0.0,) * (MAX_ELEMENTS - len(reference_values))
        values = values - element_counts(atomic_numbers) @ np.asarray(reference)
    if kind == "none":
        return Normaliser(0.0, 1.0, reference)
    measured_std = float(values.std()) if std is None else std
    if kind == "scale":
        return Normaliser(0.0, measured_std, reference)
    return Normaliser(float(values.mean()) if mean is None else mean, measured_std, reference)


def fit_forces(forces: Sequence[np.ndarray], std: float | None = None) -> Normaliser:
    """Normaliser of forces (N,3) eV/Å: mean 0, root mean square of all components of the training part."""
    if std is None:
        std = float(np.sqrt(np.mean(np.concatenate([np.asarray(f, float).ravel() for f in forces]) ** 2)))
    return Normaliser(0.0, std)
