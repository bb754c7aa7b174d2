"""What is in a user's data: counts, elements, sizes, labels, and what looks wrong (duplicates, outliers, units)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from ase.data import chemical_symbols
from ase.formula import Formula

from jmp_lib.graphs import GraphConfig
from jmp_lib.own.dataset import OwnData
from jmp_lib.predict import check_neighbours
from jmp_lib.train.normalise import element_counts, fit_linear_reference

OUTLIER = 12.0  # median absolute deviations from the median
FORCE_RANGE = (0.05, 15.0)  # eV/Å, root mean square of the components: outside, units are doubted
RATIO_RANGE = (0.002, 0.5)  # Å, spread of energies over force norm of a structure: outside, units are doubted


def formula(atomic_numbers: np.ndarray) -> str:
    """Reduced formula, elements in Hill order."""
    symbols = "".join(chemical_symbols[z] for z in atomic_numbers)
    return Formula(symbols).reduce()[0].format("hill")


def summary(data: OwnData) -> pd.DataFrame:
    """One row per fact: counts, sizes, elements, periodicity, range of every label with its unit."""
    s = data.structures
    rows = [("structures", f"{len(s)}"), ("atoms per structure", f"{s.natoms.min()} to {s.natoms.max()}, mean {s.natoms.mean():.1f}"),
            ("elements", ", ".join(chemical_symbols[z] for z in s.elements)),
            ("different compositions", f"{len({formula(x['atomic_numbers']) for x in s})}"),
            ("periodic", f"{int(s.pbc.any(1).sum())} of {len(s)}")]
    for key in data.properties:
        values = s.forces.ravel() if key == "forces" else s.scalars[key]
        rows.append((f"{key} / {data.units[key]}", f"{values.min():.4g} to {values.max():.4g}, mean {values.mean():.4g}, "
                                                   f"standard deviation {values.std():.3g}"))
    if data.groups is not None:
        rows.append(("groups", f"{len(np.unique(data.groups))}"))
    return pd.DataFrame(rows, columns=["what", "found"])


def doubts(data: OwnData, graph: GraphConfig) -> list[str]:
    """Sentences about what may be wrong; raises ``ValueError`` for a structure that the graphs cannot serve."""
    for row, structure in enumerate(data.structures):
        check_neighbours(structure, f"structure {row}", graph)
    return [*_duplicates(data), *_outliers(data), *_units(data), *_extensive(data)]


def residuals(data: OwnData, key: str) -> np.ndarray:
    """A scalar without the part that the composition explains (energies), else less its median."""
    values, numbers = data.structures.scalars[key], [s["atomic_numbers"] for s in data.structures]
    if not data.forces:
        return values - np.median(values)
    return values - element_counts(numbers) @ np.asarray(fit_linear_reference(numbers, values))


def _duplicates(data: OwnData) -> list[str]:
    extra = int((data.copies != np.arange(len(data.copies))).sum())
    return [f"{extra} structures repeat another one; copies always go to the same part of the split"] if extra else []


def _outliers(data: OwnData) -> list[str]:
    found = []
    for key in (k for k in data.properties if k != "forces"):
        left = residuals(data, key)
        distance = np.abs(left - np.median(left))
        scale = np.median(distance)
        rows = np.flatnonzero(distance > OUTLIER * scale) if scale > 0 else np.array([], int)
        if rows.size:
            found.append(f"{key}: {rows.size} values lie more than {OUTLIER:g} median deviations out (rows "
                         f"{', '.join(map(str, rows[:5]))}{', ...' * (rows.size > 5)}); mixed units or broken labels?")
    return found


def _units(data: OwnData) -> list[str]:
    if not data.forces:
        return []
    found, s = [], data.structures
    rms = float(np.sqrt(np.mean(s.forces.astype(float) ** 2)))
    if not FORCE_RANGE[0] <= rms <= FORCE_RANGE[1]:
        guess = "kcal/mol/Å" if rms > FORCE_RANGE[1] else "Hartree/bohr, or relaxed structures"
        found.append(f"forces of {rms:.3g} eV/Å (root mean square) are unusual: are they in {guess}?")
    norm = rms * np.sqrt(3 * s.natoms.mean())
    ratio = float(residuals(data, "energy").std() / norm)
    if not RATIO_RANGE[0] <= ratio <= RATIO_RANGE[1]:
        guess = "larger" if ratio > RATIO_RANGE[1] else "smaller"
        found.append(f"energies vary by {residuals(data, 'energy').std():.3g} eV, much {guess} than forces of {rms:.3g} eV/Å "
                     "let expect: do energies and forces have the units given (Hartree? kcal/mol)?")
    return found


def _extensive(data: OwnData) -> list[str]:
    sizes = data.structures.natoms
    if data.forces or sizes.min() == sizes.max():
        return []
    found = []
    for key in data.properties:
        correlation = np.corrcoef(sizes, data.structures.scalars[key])[0, 1]
        if abs(correlation) > 0.95:
            found.append(f"{key} follows the number of atoms (correlation {correlation:.2f}): reduction = \"sum\" suits a "
                         "quantity that grows with size")
    return found
