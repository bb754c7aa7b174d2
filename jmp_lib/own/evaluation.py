"""Honest numbers about a user's data and models: what is in the data and what looks wrong (copies, outliers, units),
baselines without a network, bootstrap intervals over test structures or groups, errors by element."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from ase.data import chemical_symbols

from jmp_lib.data.copies import TOLERANCE
from jmp_lib.data.splits import Split
from jmp_lib.graphs import GraphConfig
from jmp_lib.own.data import OwnData, formula
from jmp_lib.predict import neighbours
from jmp_lib.results.baselines import linear_composition
from jmp_lib.results.intervals import bootstrap, middle
from jmp_lib.train.losses import mae, structure_errors
from jmp_lib.train.normalise import element_counts, fit_linear_reference, numbers_of, true_values

SIMPLE = ("mean", "linear composition")  # ways to predict without a network
OUTLIER = 12.0  # median absolute deviations from the median
FORCE_RANGE = (0.05, 15.0)  # eV/Å, root mean square of the components: outside, units are doubted
RATIO_RANGE = (0.002, 0.5)  # Å, spread of energies over force norm of a structure: outside, units are doubted


def summary(data: OwnData) -> pd.DataFrame:
    """One row per fact: counts, sizes, elements, periodicity, range of every label with its unit."""
    s = data.structures
    rows = [("structures", f"{len(s)}"), ("atoms per structure", f"{s.natoms.min()} to {s.natoms.max()}, mean {s.natoms.mean():.1f}"),
            ("elements", ", ".join(chemical_symbols[z] for z in s.elements)),
            ("different compositions", f"{len({formula(x['atomic_numbers']) for x in s})}"),
            ("periodic", f"{int(s.pbc.any(1).sum())} of {len(s)}"),
            ("copies of another structure", f"{len(_repeats(data))} of {len(s)}")]
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
        neighbours(structure, f"structure {row}", graph)
    extra, sizes, numbers, found = _repeats(data), data.structures.natoms, numbers_of(data.structures), []
    if extra.size:
        found.append(f"{extra.size} structures repeat another one within {TOLERANCE} Å (the first: {extra[0]} repeats "
                     f"{data.copies[extra[0]]}); copies always go to the same part of the split")
    for key in (key for key in data.properties if key != "forces"):
        left = values = data.structures.scalars[key]
        if data.forces:  # without the part that the composition explains
            left = values - element_counts(numbers) @ np.asarray(fit_linear_reference(numbers, values))
        distance = np.abs(left - np.median(left))
        scale = np.median(distance)
        rows = np.flatnonzero(distance > OUTLIER * scale) if scale > 0 else np.array([], int)
        if rows.size:
            found.append(f"{key}: {rows.size} values lie more than {OUTLIER:g} median deviations out (rows "
                         f"{', '.join(map(str, rows[:5]))}{', ...' * (rows.size > 5)}); mixed units or broken labels?")
    if data.forces:
        return found + _doubted_units(data, float(left.std()))
    for key in data.properties if sizes.min() < sizes.max() else ():
        correlation = np.corrcoef(sizes, data.structures.scalars[key])[0, 1]
        if abs(correlation) > 0.95:
            found.append(f"{key} follows the number of atoms (correlation {correlation:.2f}): reduction = \"sum\" suits a "
                         "quantity that grows with size")
    return found


def _repeats(data: OwnData) -> np.ndarray:
    """Rows of the structures that are copies of an earlier one."""
    return np.flatnonzero(data.copies != np.arange(len(data.copies)))


def _doubted_units(data: OwnData, spread: float) -> list[str]:
    """Sentences where forces, or energies (which vary by ``spread`` eV) beside forces, are of unusual size."""
    rms, found = float(np.sqrt(np.mean(data.structures.forces.astype(float) ** 2))), []
    if not FORCE_RANGE[0] <= rms <= FORCE_RANGE[1]:
        guess = "kcal/mol/Å" if rms > FORCE_RANGE[1] else "Hartree/bohr, or relaxed structures"
        found.append(f"forces of {rms:.3g} eV/Å (root mean square) are unusual: are they in {guess}?")
    ratio = spread / (rms * np.sqrt(3 * data.structures.natoms.mean()))
    if not RATIO_RANGE[0] <= ratio <= RATIO_RANGE[1]:
        guess = "larger" if ratio > RATIO_RANGE[1] else "smaller"
        found.append(f"energies vary by {spread:.3g} eV, much {guess} than forces of {rms:.3g} eV/Å let expect: do energies and "
                     "forces have the units given (Hartree? kcal/mol)?")
    return found


def true_test(data: OwnData, split: Split) -> dict[str, np.ndarray]:
    """Labels of the test part: (S,) or, for forces, (ΣN,3)."""
    part = data.structures.subset(split.test)
    return {name: true_values(part, name) for name in data.properties}


def baselines(data: OwnData, split: Split, reduction: str = "mean") -> dict[str, dict[str, np.ndarray]]:
    """Predictions of the test part without a network: the training mean (forces: zero), and of scalars a ridge regression on
    the composition (fractions; counts where the property grows with size), its strength chosen on the training part."""
    train, test = data.structures.subset(split.train), data.structures.subset(split.test)
    numbers, extensive = (numbers_of(train), numbers_of(test)), data.forces or reduction == "sum"
    scalars = {name: train.scalars[name] for name in data.properties if name != "forces"}  # a composition has no forces
    mean = {name: np.full(len(test), values.mean()) for name, values in scalars.items()}
    if data.forces:
        mean["forces"] = np.zeros_like(test.forces, dtype=float)
    linear = {name: linear_composition(numbers[0], values, numbers[1], extensive) for name, values in scalars.items()}
    return dict(zip(SIMPLE, (mean, linear)))


def network_predictions(records: list[dict], out_dir: Path) -> dict[str, dict[str, np.ndarray]]:
    """{arm: {property: predictions}} of the first seed of every arm."""
    made = {}
    for record in records:
        if record["arm"] not in made:
            with np.load(Path(out_dir) / record["files"]["predictions"]["file"], allow_pickle=False) as arrays:
                made[record["arm"]] = {n: arrays[f"predicted_{n}"] for n in record["unit"]}
    return made


def compare(data: OwnData, split: Split, found: dict, records: list[dict], groups: np.ndarray) -> pd.DataFrame:
    """One row per property and way of predicting: MAE, 95 % interval, spread over seeds, which simple ways it is better than.

    groups (S,) of all structures: what the bootstrap draws.  Seeds: mean and standard deviation of the runs.
    """
    rows, true = [], true_test(data, split)
    for name in data.properties:
        for way in (way for way in found if name in found[way]):
            errors = structure_errors(found[way][name], true[name], data.structures.natoms[split.test])
            low, high = middle(bootstrap(errors, groups[split.test]))
            seeds = [r["value"][name] for r in records if r["arm"] == way]
            rows.append({"property": name, "way": way, "MAE": np.average(errors[:, 0], weights=errors[:, 1]),
                         "95 % from": low, "95 % to": high, "unit": data.units[name], "seeds": len(seeds) or None,
                         "mean of seeds": np.mean(seeds) if seeds else None,
                         "std of seeds": np.std(seeds, ddof=1) if len(seeds) > 1 else None, "test structures": len(errors),
                         "better than": "" if way in SIMPLE else _better(found, true, name, way)})
    return pd.DataFrame(rows)


def gain(data: OwnData, split: Split, found: dict, groups: np.ndarray, new="pre-trained", base="from scratch") -> pd.DataFrame:
    """How much lower the MAE of ``new`` is than that of ``base``, in %, with the 95 % interval of a paired bootstrap.

    ``better than``: the simple ways that ``new`` is better than; where it is none of them, the gain says nothing.
    """
    rows, true = [], true_test(data, split)
    for name in data.properties:
        natoms, exact = data.structures.natoms[split.test], [mae(found[way][name], true[name]) for way in (new, base)]
        draws = [bootstrap(structure_errors(found[way][name], true[name], natoms), groups[split.test]) for way in (new, base)]
        low, high = middle(100 * (1 - draws[0] / draws[1]))
        rows.append({"property": name, f"{new} over {base} / %": 100 * (1 - exact[0] / exact[1]),
                     "95 % from": low, "95 % to": high, "beyond chance": "yes" if low > 0 or high < 0 else "no",
                     "better than": _better(found, true, name, new)})
    return pd.DataFrame(rows)


def _better(found: dict, true: dict, name: str, way: str) -> str:
    """Names of the simple ways that predict the property worse than ``way``."""
    error, simple = mae(found[way][name], true[name]), [other for other in SIMPLE if name in found.get(other, {})]
    return " and ".join(other for other in simple if error < mae(found[other][name], true[name])) or "none"


def errors_by_element(data: OwnData, split: Split, values: dict[str, np.ndarray]) -> pd.DataFrame:
    """MAE by element: of the atoms of that element (forces) or of the structures that hold it."""
    name = data.properties[-1]
    part = data.structures.subset(split.test)
    error = np.abs(values[name] - true_test(data, split)[name])
    held, rows = element_counts(numbers_of(part)) > 0, []
    for number in part.elements:
        chosen = part.atomic_numbers == number if error.ndim == 2 else held[:, number]
        rows.append({"element": chemical_symbols[number], "MAE": error[chosen].mean(), "unit": data.units[name],
                     "atoms" if error.ndim == 2 else "structures": int(chosen.sum())})
    return pd.DataFrame(rows)
