"""Targets in normalised units, and back: per-element references, mean and standard deviation.

Everything is fitted on the training part alone.  A property y of a structure with atomic numbers Z_i is
trained as (y - Σ_i r[Z_i] - mean) / std; forces are divided by their standard deviation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np

from jmp_lib.data.structures import StructureSet

MAX_ELEMENTS = 120
SMALLEST = 1.0e-10  # singular values below this part of the largest are zero
BLOCK = 4096  # structures that are in memory at once
STRENGTHS = np.logspace(-6, 3, 10)  # of the ridge; the best by leave-one-out on the training part
# times counts, wrapped: a number for a composition
_WEIGHTS = np.random.default_rng(0).integers(1 << 62, size=MAX_ELEMENTS)


def element_counts(atomic_numbers: Sequence[np.ndarray]) -> np.ndarray:
    """Atoms of every element in every structure: S arrays (N,) -> (S,120), column = atomic number."""
    counts = [np.bincount(np.asarray(z), minlength=MAX_ELEMENTS)[:MAX_ELEMENTS] for z in atomic_numbers]
    return np.stack(counts).astype(float)


def fit_linear_reference(atomic_numbers: Sequence[np.ndarray], values: np.ndarray) -> tuple[float, ...]:
    """Per-element contributions by least squares without intercept, unit of ``values``: a number for
    each of Z = 0 to 119."""
    counts = element_counts(atomic_numbers)
    return _contributions(counts, np.asarray(values, float), counts.any(axis=0))


def fit_composition(atomic_numbers: Sequence[np.ndarray], values: np.ndarray,
                    extensive: bool) -> tuple[np.ndarray, float]:
    """The linear composition model, a ridge regression on ``composition``: a number for each of Z = 0 to 119 (0 for
    elements that never occur) and the intercept, unit of ``values``."""
    from sklearn.linear_model import RidgeCV  # takes a second to import

    model = RidgeCV(STRENGTHS).fit(composition(atomic_numbers, extensive), np.asarray(values, float))
    return model.coef_, float(model.intercept_)


def composition(atomic_numbers: Sequence[np.ndarray], extensive: bool) -> np.ndarray:
    """Element counts (``extensive``) or fractions of every structure, (S,120)."""
    counts = element_counts(atomic_numbers)
    return counts if extensive else counts / counts.sum(axis=1, keepdims=True)


def _contributions(counts: np.ndarray, values: np.ndarray, present: np.ndarray) -> tuple[float, ...]:
    """Least squares of ``values`` (R,) in the columns of ``counts`` (R,120) whose element is ``present`` (120,).

    When the compositions do not determine the solution, the one of smallest norm is taken; elements that never occur
    get the mean of the others, so that a new element costs a typical and not an absurd amount.
    """
    solution, *_ = np.linalg.lstsq(counts[:, present], values, rcond=SMALLEST)
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
    extensive: bool = True  # the references of the atoms are summed; false: averaged

    def __post_init__(self):
        if not (np.isfinite(self.mean) and np.isfinite(self.std) and self.std > 0):
            raise ValueError(f"normaliser with mean {self.mean} and standard deviation {self.std}: the training "
                             "part must hold at least two different finite values")

    def offset(self, atomic_numbers: np.ndarray) -> float:
        """Reference plus mean of one structure, unit of y."""
        if self.reference is None:
            return self.mean
        contributions = np.asarray(self.reference)[np.asarray(atomic_numbers)]
        return self.mean + float(contributions.sum() if self.extensive else contributions.mean())

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
                 reference_values: tuple[float, ...] | None = None, extensive: bool = True) -> Normaliser:
    """Normaliser of a property from the training part.

    kind: ``standard`` (y-mean)/std, ``scale`` y/std, ``none`` y; a given ``mean``, ``std`` or
    ``reference_values`` is used instead of the measured one. The references of a property that is not
    ``extensive`` belong to the fractions of the elements; training parts hold few structures of many elements
    there, so they are those of the ridge.
    """
    values = np.asarray(values, float)
    reference = None
    if linear_reference:
        if reference_values is not None:
            reference = (*reference_values, *[0.0] * (MAX_ELEMENTS - len(reference_values)))
        elif extensive:
            reference = fit_linear_reference(atomic_numbers, values)
        else:
            reference = tuple(fit_composition(atomic_numbers, values, extensive)[0].tolist())
        values = values - composition(atomic_numbers, extensive) @ np.asarray(reference)
    if kind == "none":
        return Normaliser(0.0, 1.0, reference, extensive)
    std = float(values.std()) if std is None else std
    mean = 0.0 if kind == "scale" else float(values.mean()) if mean is None else mean
    return Normaliser(mean, std, reference, extensive)


def fit_forces(forces: np.ndarray, std: float | None = None) -> Normaliser:
    """Normaliser of forces (ΣN,3) eV/Å: mean 0, root mean square of all components of the training part."""
    return Normaliser(0.0, float(np.sqrt(np.mean(np.asarray(forces, float).ravel() ** 2))) if std is None else std)


def numbers_of(structures: StructureSet) -> list[np.ndarray]:
    """Atomic numbers (N,) of every structure of a set."""
    return np.split(structures.atomic_numbers, np.cumsum(structures.natoms)[:-1])


def true_values(structures: StructureSet, label: str) -> np.ndarray:
    """Labels of a set in the label's unit, float64: (S,), or (ΣN,3) for forces."""
    return structures.forces.astype(float) if label == "forces" else structures.scalars[label]


def denormalised(values: np.ndarray, structures: StructureSet, normaliser: Normaliser) -> np.ndarray:
    """Model output of a whole set in the label's unit: (S,), or (ΣN,3) for forces."""
    if values.ndim == 2:
        return values * normaliser.std
    return np.array([normaliser.denormalise(value, z) for value, z in zip(values, numbers_of(structures))])


@dataclass(frozen=True)
class JointFit:
    """What :func:`fit` finds in a set that need not fit in memory: references and normalisers follow from it.

    triangle: the rows (atoms of each element, 1, energy) reduced by QR decomposition, from which least squares, mean
    and deviation follow as from the rows themselves, without squared condition numbers.
    """

    triangle: np.ndarray
    present: np.ndarray  # (120,) elements that occur
    n: int  # structures
    force_std: float  # root mean square of all components, eV/Å
    few_compositions: bool  # no more of them than elements: references cannot be told from what is to be learnt

    def energy(self, linear_reference: bool = True, mean: float | None = None, std: float | None = None,
               per_atom: bool = False) -> Normaliser:
        """Normaliser of the energy in eV; a given ``mean`` or ``std`` goes before the measured one.

        per_atom: one reference for the atoms of all elements where there are few compositions. One for each would
        take the whole energy of every composition, and be tens of eV wrong for others.
        """
        counts, ones, energies = self.triangle[:, :MAX_ELEMENTS], self.triangle[:, -2], self.triangle[:, -1]
        reference = None
        if linear_reference and per_atom and self.few_compositions:
            atoms = counts.sum(axis=1)
            reference = (0.0, *[float(atoms @ energies / (atoms @ atoms))] * (MAX_ELEMENTS - 1))
        elif linear_reference:
            reference = _contributions(counts, energies, self.present)
        if reference is not None:
            energies = energies - counts @ np.asarray(reference)
        measured = float(ones @ energies) / self.n
        if std is None:
            std = float(np.linalg.norm(energies - measured * ones) / np.sqrt(self.n))
        return Normaliser(measured if mean is None else mean, std, reference)


def fit(structures: Iterable[dict], block: int = BLOCK) -> JointFit:
    """One pass over structures with energy (eV) and forces (N,3) eV/Å, ``block`` of them in memory."""
    triangle, present = np.zeros((0, MAX_ELEMENTS + 2)), np.zeros(MAX_ELEMENTS, bool)
    compositions: set[int] = set()  # a number for each; no more are counted than there are elements
    n = components = 0
    squares, structures = 0.0, iter(structures)
    while rows := list(islice(structures, block)):
        counts = element_counts([s["atomic_numbers"] for s in rows])
        columns = np.column_stack([counts, np.ones(len(rows)), [float(s["energy"]) for s in rows]])
        triangle = np.linalg.qr(np.vstack([triangle, columns]), mode="r")
        present |= counts.any(axis=0)
        if len(compositions) <= MAX_ELEMENTS:
            compositions.update((counts.astype(np.int64) @ _WEIGHTS).tolist())
        n += len(rows)
        for structure in rows:
            forces = np.asarray(structure["forces"], float)
            squares += float((forces**2).sum())
            components += forces.size
    return JointFit(triangle, present, n, float(np.sqrt(squares / components)), len(compositions) <= present.sum())
