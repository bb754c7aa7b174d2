"""Honest numbers about a user's data and models: what is in the data and what looks wrong (copies, outliers, units),
baselines without a network, bootstrap intervals over test structures or groups, errors by element."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
from ase.data import chemical_symbols, covalent_radii

from jmp_lib.data.copies import TOLERANCE
from jmp_lib.data.normalise import element_counts, fit_linear_reference, numbers_of, true_values
from jmp_lib.data.splits import Split
from jmp_lib.graphs import GraphConfig
from jmp_lib.own.data import OwnData, formula
from jmp_lib.predict import neighbours
from jmp_lib.results.baselines import linear_composition
from jmp_lib.results.intervals import bootstrap, middle
from jmp_lib.train.losses import mae, structure_errors

SIMPLE = ("mean", "linear composition")  # ways to predict without a network
OUTLIER = 12.0  # median absolute deviations from the median
FORCE_RANGE = (0.05, 15.0)  # eV/Å, root mean square of the components: outside, units are doubted
LENGTH_RANGE = (0.75, 1.35)  # nearest neighbour over the sum of covalent radii, median: outside, positions are doubted
# Å per atom between frames that are compared; pairs that say something; frames of one kind
NEAR, FEWEST, FRAMES = 0.3, 10, 200
RATIO_RANGE = (0.002, 0.5)  # Å, spread of energies over force norm of a structure: outside, units are doubted


def summary(data: OwnData) -> pd.DataFrame:
    """One row per fact: counts, sizes, elements, periodicity, range of every label with its unit."""
    s = data.structures
    rows = [("structures", f"{len(s)}"),
            ("atoms per structure", f"{s.natoms.min()} to {s.natoms.max()}, mean {s.natoms.mean():.1f}"),
            ("elements", ", ".join(chemical_symbols[z] for z in s.elements)),
            ("different compositions", f"{len({formula(x['atomic_numbers']) for x in s})}"),
            ("periodic", f"{int(s.pbc.any(1).sum())} of {len(s)}"),
            ("copies of another structure", f"{len(_repeats(data))} of {len(s)}")]
    for key in data.properties:
        values = s.forces.ravel() if key == "forces" else s.scalars[key]
        rows.append((f"{key} / {data.units[key]}", f"{values.min():.4g} to {values.max():.4g}, "
                                                   f"mean {values.mean():.4g}, standard deviation {values.std():.3g}"))
    if data.groups is not None:
        rows.append(("groups", f"{len(np.unique(data.groups))}"))
    return pd.DataFrame(rows, columns=["what", "found"])


def doubts(data: OwnData, graph: GraphConfig) -> list[str]:
    """Sentences about what may be wrong; raises ``ValueError`` for a structure that the graphs cannot serve."""
    nearest = []  # of every atom: distance over the sum of the covalent radii
    for row, structure in enumerate(data.structures):
        edges, _, squared = neighbours(structure, f"structure {row}", graph)
        radii = covalent_radii[np.asarray(structure["atomic_numbers"])]
        nearest.append(np.full(len(radii), np.inf))
        np.minimum.at(nearest[-1], edges[1], np.sqrt(squared) / radii[edges].sum(0))
    extra, sizes, numbers, found = _repeats(data), data.structures.natoms, numbers_of(data.structures), []
    if not LENGTH_RANGE[0] <= (length := float(np.median(np.concatenate(nearest)))) <= LENGTH_RANGE[1]:
        found.append(f"neighbours are {length:.2f} times as far apart as their covalent radii let expect (median): "
                     "are positions and cells in Å?")
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
        return found + _doubted_units(data, float(left.std())) + _doubted_sign(data)
    for key in data.properties if sizes.min() < sizes.max() else ():
        correlation = np.corrcoef(sizes, data.structures.scalars[key])[0, 1]
        if abs(correlation) > 0.95:
            found.append(f"{key} follows the number of atoms (correlation {correlation:.2f}): "
                         "reduction = \"sum\" suits a quantity that grows with size")
    return found


def _repeats(data: OwnData) -> np.ndarray:
    """Rows of the structures that are copies of an earlier one."""
    return np.flatnonzero(data.copies != np.arange(len(data.copies)))


def _doubted_sign(data: OwnData) -> list[str]:
    """A sentence where energies rise along the forces: of pairs of near frames of the same atoms (and cell), ΔE is
    about -F·Δx with the mean of both forces. Nothing where there are few such pairs."""
    s, same, rises = data.structures, defaultdict(list), {}
    forces = np.split(s.forces.astype(float), np.cumsum(s.natoms)[:-1])
    for row, structure in enumerate(s):
        same[tuple(np.asarray(structure[key]).tobytes() for key in ("atomic_numbers", "cell", "pbc"))].append(row)
    for rows in (rows[:FRAMES] for rows in same.values() if len(rows) > 1):
        first, places = s[rows[0]], np.stack([np.asarray(s[row]["pos"], float) for row in rows])
        lattice = np.asarray(first["cell"], float) * np.asarray(first["pbc"])[:, None]
        for one, place in enumerate(places):
            moves = places - place
            moves -= np.round(moves @ np.linalg.pinv(lattice)) @ lattice  # to the nearest image
            apart = np.sqrt((moves**2).sum(2).mean(1))
            apart[one] = np.inf
            if apart[other := int(apart.argmin())] < NEAR:
                a, b = rows[one], rows[other]
                rises[min(a, b), max(a, b)] = (np.subtract(*s.scalars["energy"][[b, a]]),
                                               -0.5 * ((forces[a] + forces[b]) * moves[other]).sum())
    if len(rises) < FEWEST or not min(np.ptp(pairs := np.array(list(rises.values())), axis=0)) > 0:
        return []
    correlation = np.corrcoef(pairs.T)[0, 1]
    return [f"energies rise along the forces (correlation {correlation:.2f} of ΔE and -F·Δx in {len(pairs)} pairs of "
            "near frames): are these gradients? forces have the other sign"] * int(correlation < -0.5)


def _doubted_units(data: OwnData, spread: float) -> list[str]:
    """Sentences where forces, or energies (which vary by ``spread`` eV) beside forces, are of unusual size."""
    rms, found = float(np.sqrt(np.mean(data.structures.forces.astype(float) ** 2))), []
    if not FORCE_RANGE[0] <= rms <= FORCE_RANGE[1]:
        guess = "kcal/mol/Å" if rms > FORCE_RANGE[1] else "Hartree/bohr, or relaxed structures"
        found.append(f"forces of {rms:.3g} eV/Å (root mean square) are unusual: are they in {guess}?")
    ratio = spread / (rms * np.sqrt(3 * data.structures.natoms.mean()))
    if not RATIO_RANGE[0] <= ratio <= RATIO_RANGE[1]:
        guess = "larger" if ratio > RATIO_RANGE[1] else "smaller"
        found.append(f"energies vary by {spread:.3g} eV, much {guess} than forces of {rms:.3g} eV/Å let expect: "
                     "do energies and forces have the units given (Hartree? kcal/mol)?")
    return found


def true_test(data: OwnData, split: Split) -> dict[str, np.ndarray]:
    """Labels of the test part: (S,) or, for forces, (ΣN,3)."""
    part = data.structures.subset(split.test)
    return {name: true_values(part, name) for name in data.properties}


def baselines(data: OwnData, split: Split, reduction: str = "mean") -> dict[str, dict[str, np.ndarray]]:
    """Predictions of the test part without a network: the training mean (forces: zero), and of scalars a ridge
    regression on the composition (fractions; counts where the property grows with size), its strength chosen on the
    training part."""
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
    """One row per property and way of predicting: MAE, 95 % interval, spread over seeds, which simple
    ways it is better than.

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
                         "std of seeds": np.std(seeds, ddof=1) if len(seeds) > 1 else None,
                         "test structures": len(errors),
                         "better than": "" if way in SIMPLE else _better(data, split, found, groups, name, way)})
    return pd.DataFrame(rows)


def gain(data: OwnData, split: Split, found: dict, records: list[dict], groups: np.ndarray, new="pre-trained",
         base="from scratch") -> pd.DataFrame:
    """How much lower the MAE of ``new`` is than that of ``base``, in %, with the 95 % interval of a paired bootstrap;
    of the first seed.

    ``beyond the draw``: whether the draw of the test structures does not explain it. ``lower with seeds``: of how many.
    ``better than``: the simple ways that ``new`` is better than; where it is none of them, the gain says nothing.
    """
    rows, true = [], true_test(data, split)
    for name in data.properties:
        exact = [mae(found[way][name], true[name]) for way in (new, base)]
        draws = [_draws(data, split, found, groups, name, way) for way in (new, base)]
        low, high = middle(100 * (1 - draws[0] / draws[1]))
        first, second = ({r["seed"]: r["value"][name] for r in records if r["arm"] == arm} for arm in (new, base))
        rows.append({"property": name, f"{new} over {base} / %": 100 * (1 - exact[0] / exact[1]),
                     "95 % from": low, "95 % to": high, "beyond the draw": "yes" if low > 0 or high < 0 else "no",
                     "lower with seeds": f"{sum(first[seed] < second[seed] for seed in first)} of {len(first)}",
                     "better than": _better(data, split, found, groups, name, new)})
    return pd.DataFrame(rows)


def _draws(data: OwnData, split: Split, found: dict, groups: np.ndarray, name: str, way: str) -> np.ndarray:
    """Bootstrapped MAE of ``way``; the same test structures (groups) are drawn for every way."""
    errors = structure_errors(found[way][name], true_test(data, split)[name], data.structures.natoms[split.test])
    return bootstrap(errors, groups[split.test])


def _better(data: OwnData, split: Split, found: dict, groups: np.ndarray, name: str, way: str) -> str:
    """Names of the simple ways that predict the property worse than ``way``, beyond what the draw of the test
    structures explains."""
    draws = {other: _draws(data, split, found, groups, name, other) for other in (way, *SIMPLE)
             if name in found.get(other, {})}
    return " and ".join(other for other in SIMPLE
                        if other in draws and middle(draws[way] - draws[other])[1] < 0) or "none"


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
